"""The submitter: one pass, started by cron, from whatever state the last one left.

A pass observes (dropbox, records, the cluster's census), asks the plan for each job's next step,
and performs the steps in the plan's order, each for all its jobs as one batch. It logs in at most
once, and only when a job needs the cluster. A step that fails for one job does not stop the others;
what the cluster did not answer is left for the next pass. While big files travel in the lane, or for
`[cronjob] linger` seconds, the pass sweeps again and again.

All effects are in the rooms that this one calls: intake, staging, collecting, placing, answer.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hpc_batch import node, plan
from hpc_batch.answer import Answers
from hpc_batch.collecting import Ticket, ticket_of
from hpc_batch.config import Config
from hpc_batch.connection import Connection
from hpc_batch.description import describe
from hpc_batch.errors import FarEndError, JobFileError, RemoteError, Unreachable
from hpc_batch.intake import Drop, Intake, Listing, judge, look, unanswerable
from hpc_batch.node import Node
from hpc_batch.record import Record, Records, now, seconds_since
from hpc_batch.report import Report
from hpc_batch.state import Busy, State, check_home, hold
from hpc_batch.trouble import Ledger
from hpc_cluster import files

log = logging.getLogger("hpc_batch")

OUTAGE_S = 30 * 60
"""An unreachable cluster is told to the operator after so long."""

STUCK_S = 48 * 3600
"""What may pass is waited for so long; then the job is answered with the error."""

CANCEL_S = 60
"""A cancel file without a job is removed after so long."""

SWEEP_S = 24 * 3600
"""The cluster is swept for orphans once in so long."""

PERIOD_S = 2.0
"""Between two sweeps of one pass."""

PASSING_KINDS = frozenset(("ENOSPC", "EDQUOT", "EIO", "ESTALE", "bug", "batch"))
"""What the far end may say that no change of the configuration mends."""


@dataclass(frozen=True)
class Options:
    """The command line of `hpc_submitter`."""

    debug: bool = False
    """Tell every transition on stderr."""
    nocleanup: bool = False
    """Keep the jobs' data on the cluster, in `kept/`."""
    email: str | None = None
    """Passed on to the batch system in place of [hpc] email."""


def run(config: Config, options: Options) -> int:
    """Make one pass and return the exit code; 0 when another pass is running.

    Raises ConfigError when the operator must mend something first.
    """
    try:
        with hold(config) as state:
            return Pass(config, options, state).run()
    except Busy as busy:
        log.info("another pass holds %s", busy)
        return 0


class Pass:
    """One pass over everything."""

    def __init__(self, config: Config, options: Options, state: State) -> None:
        state.begin()
        self.config, self.options, self.state = config, options, state
        self.records = Records(state.path("jobs"))
        self.ledger = Ledger(state)
        self.intake = Intake(config, state, self.records)
        self.answers = Answers(state, self.records, self.intake)
        self.report = Report(config, state)
        self.connection: Connection | None = None
        self.code = 0
        self._refused = False
        """The cluster could not be used in this pass; it is not tried again."""
        self._paused = False
        self._census: Mapping[str, tuple[str, str]] | None = None
        """J: the folder of its ticket and the ticket's name; None without a complete census."""
        self._counted: frozenset[str] = frozenset()
        self._told: set[str] = set()
        self._perform: dict[plan.Step, Callable[[list[Record]], None]] = {
            "accept": self._accept,
            "check": self._check,
            "withdraw": self._withdraw,
            "stage": self._stage,
            "publish": self._publish,
            "collect": self._collect,
            "cancel": self._cancel,
            "miss": self._miss,
            "place": self._place,
            "unplace": self.answers.unplace,
            "answer": self._answer,
            "clean": self._clean,
        }
        check_home(self.records, config)

    # ---- the pass ----------------------------------------------------------------------------

    def run(self) -> int:
        """Sweep until nothing is under way, write the status, and return the exit code."""
        try:
            self._serve()
        finally:
            self._disconnect()
            if self.ledger.lasts_s("cluster") > OUTAGE_S and self.code == 75:
                self.code = 69
            self.ledger.end("cluster", "pilots")
            self.report.end(self.code, self.ledger.entries())
            self.ledger.save()
        return self.code

    @property
    def messages(self) -> list[str]:
        """What the operator has to read."""
        return self.ledger.messages

    def _serve(self) -> None:
        end = time.monotonic() + self.config.cronjob.linger
        while True:
            self._sweep()
            try:
                travelling = self.connection is not None and self.connection.lane.busy()
            except (RemoteError, OSError) as error:
                self._lost(error)
                travelling = False
            if not travelling and time.monotonic() >= end:
                return
            if travelling and self.connection is not None:
                self.connection.lane.wait(PERIOD_S)
            else:
                time.sleep(min(PERIOD_S, max(0.0, end - time.monotonic())))

    def _sweep(self) -> None:
        """Observe, plan, act: once over everything."""
        self._paused = self.state.paused() is not None
        listing = look(self.config.cronjob.dropbox)
        clock = self.state.clock() if listing.drops or listing.cancels else 0.0
        self._observe_cluster()
        for step in plan.ORDER:
            if step == "check":
                self._take(listing, clock)
            batch = [r for r in self.records if self._next(r) == step]
            if batch and not (self._paused and step == "stage"):
                self._act(step, batch)
        self._keep_pilots()
        self._tidy_cluster()
        self.report.look(self.records, self._census)
        for record, shown in self.report.news(self.records):
            self.intake.submitted([record], shown)
        self.report.write(self.ledger.entries())

    def _next(self, record: Record) -> plan.Step:
        place, _ = (self._census or {}).get(record.id, (None, ""))
        return plan.next_step(
            plan.Seen(
                phase=record.phase,
                cancel=files.exists(self.state.of_job(record.id, "cancel")),
                told=record.id in self._told,
                counted=record.id in self._counted,
                ticket=place,  # type: ignore[arg-type]
                missing=record.missing,
            )
        )

    def _act(self, step: plan.Step, batch: list[Record]) -> None:
        """Perform a step for a batch; where that fails, for each job by itself."""
        try:
            self._perform[step](batch)
        except RemoteError as error:
            self._lost(error)
        except Exception as error:
            if len(batch) > 1:
                for record in batch:
                    self._act(step, [record])
            else:
                self._stumbled(step, batch[0], error)

    def _stumbled(self, step: plan.Step, record: Record, error: Exception) -> None:
        """Note an error that nobody foresaw; the job stays where it is, and is tried again."""
        self.code = max(self.code, 75 if isinstance(error, OSError) else 70)
        text = f"{record.name}: cannot {step} ({type(error).__name__}: {error})"
        log.error("%s %s", record.id, text, exc_info=not isinstance(error, OSError))
        self.ledger.note(f"{step} {record.id}", f"{text}; tried again by the next pass")

    # ---- the cluster -------------------------------------------------------------------------

    def _connect(self) -> Connection | None:
        """Log in, once a pass; None where that fails, now or before."""
        if self.connection is None and not self._refused:
            try:
                self.connection = Connection(self.config, self.state, self.records)
                self.ledger.over("cluster")
                self.report.reachable(None)
            except RemoteError as error:
                self._lost(error)
        return self.connection

    def _disconnect(self) -> None:
        if self.connection is not None:
            self.report.count(self.connection)
            self.connection.close()
            self.connection = None

    def _lost(self, error: Exception) -> None:
        """The cluster cannot be used any more in this pass."""
        self._refused = True
        self._disconnect()
        hint = getattr(error, "hint", "")
        passing = isinstance(error, (Unreachable, OSError)) or not isinstance(error, RemoteError)
        code = getattr(error, "exit_code", 75)
        if isinstance(error, FarEndError) and error.kind in PASSING_KINDS:
            code = 75
        log.warning("cluster: %s %s", error, hint)
        self.code = max(self.code, code)
        patience = OUTAGE_S if passing or (code == 75 and not isinstance(error, FarEndError)) else 0
        text = f"cluster {self.config.remote.host or 'local'}: {error}"
        self.report.reachable(text)
        self.ledger.note("cluster", f"{text}; {hint}" if hint else text, patience)

    def _observe_cluster(self) -> None:
        """Ask for the census when a published job may have one."""
        self._census, self._counted = None, frozenset()
        published = [r.id for r in self.records if r.phase == "PUBLISHED"]
        connection = self._connect() if published else None
        if connection is None:
            return
        try:
            census = connection.session.census()
        except RemoteError as error:
            self._lost(error)
            return
        if not census.complete:
            return
        found: dict[str, tuple[str, str]] = {}
        for place in ("incoming", "ready", "running", "done"):
            for name in getattr(census, place):
                found[name.split(".")[0]] = (place, name)
        self._census, self._counted = found, frozenset(published)

    def _keep_pilots(self) -> None:
        """Have the cluster look after its pilots while published jobs are waiting for them."""
        waiting = any(r.phase == "PUBLISHED" for r in self.records)
        if not waiting or self.connection is None:
            return
        try:
            kept = self.connection.session.pilots(self._policy())
        except RemoteError as error:
            self._lost(error)
            return
        self.report.pilots = [dict(p) for p in kept.pilots]
        for pilot in kept.submitted:
            log.info("pilot %s submitted", pilot)
        for job in kept.reaped:
            log.info("%s reaped from a dead pilot", job)
        if kept.trouble is None:
            self.ledger.over("pilots")
        else:
            self.ledger.note("pilots", f"pilots: {kept.trouble.get('message')}")

    def _policy(self) -> dict[str, Any]:
        hpc, pilot, limits = self.config.hpc, self.config.pilot, self.config.limits
        return {
            "scheduler": hpc.scheduler,
            "max": pilot.max,
            "slots": pilot.slots,
            "linger": pilot.linger,
            "walltime": hpc.walltime,
            "options": list(hpc.options),
            "account": hpc.account,
            "qos": hpc.qos,
            "partition": hpc.partition,
            "gres": hpc.gres,
            "memory": hpc.memory,
            "gpuram": hpc.gpuram,
            "email": self.options.email or hpc.email,
            "prologue": hpc.prologue,
            "attempts": limits.attempts,
            "starts": limits.starts,
            "submit": not self._paused,
            "python": self.config.remote.python,
        }

    def _tidy_cluster(self) -> None:
        """Once a day, trash what no record knows any more."""
        swept = self.state.read("swept.json")
        if self.connection is None or (swept and seconds_since(swept["at"]) < SWEEP_S):
            return
        known = [r.id for r in self.records]
        try:
            trashed = self.connection.session.sweep(known, self.config.limits.store_bytes)
        except RemoteError as error:
            self._lost(error)
            return
        log.info("swept the workspace: %d orphans", len(trashed))
        self.state.write("swept.json", {"at": now()})

    # ---- taking ------------------------------------------------------------------------------

    def _take(self, listing: Listing, clock: float) -> None:
        """Take the drops that are settled, and act on cancel files."""
        in_flight = {r.name: r for r in self.records if r.phase not in ("ANSWERING", "CLEANING")}
        busy = {r.name for r in self.records}
        settled = []
        for drop in listing.drops:
            name = _name(drop.name)
            why = unanswerable(drop)
            if why is not None:
                self.ledger.note(f"drop {name!r}", f"{name!r} in the dropbox {why}")
            elif name not in busy and not self._paused and self._is_settled(drop, listing, clock):
                settled.append(drop)
        taken = self.intake.take(settled, {_name(n) for n in listing.finished})
        for record in taken:
            log.info("%s taken: %s", record.id, record.name)
            in_flight[record.name] = record
        for name in listing.cancels:
            self._take_cancel(name, in_flight.get(_name(name)), listing, clock)

    def _is_settled(self, drop: Drop, listing: Listing, clock: float) -> bool:
        if drop.name in listing.cancels:
            return True
        verdict = judge(str(self.config.cronjob.dropbox / drop.name), clock, self.config)
        return verdict == "take"

    def _take_cancel(
        self, name: str, record: Record | None, listing: Listing, clock: float
    ) -> None:
        """Give a cancel file to the job in flight; remove it when there is none."""
        if record is not None:
            log.info("%s asked to cancel", record.id)
            self.intake.cancel(name, record.id)
            return
        path = self.config.cronjob.dropbox / f"{name}.cancel"
        with contextlib.suppress(OSError):
            waiting = any(d.name == name for d in listing.drops)
            if not waiting and clock - path.lstat().st_ctime >= CANCEL_S:
                files.unlink(str(path))
                self.ledger.messages.append(f"{name + '.cancel'!r}: there is no such job; removed")

    def _accept(self, batch: list[Record]) -> None:
        self.intake.accept(batch)

    def _check(self, batch: list[Record]) -> None:
        """ACCEPTED to STAGING, or with every problem to ANSWERING: read each drop once."""
        clock = self.state.clock()
        good: list[Record] = []
        beside: dict[str, Any] = {}
        bad: list[tuple[Record, Node]] = []
        for record in batch:
            if judge(self.state.of_job(record.id, "drop"), clock, self.config) != "take":
                continue
            data = b""
            try:
                data = self.intake.read(record)
                made = describe(record.id, record.name, data, self.config)
            except JobFileError as error:
                text = "; ".join(str(p) for p in error.problems)
                bad.append((record, node.make(record, "rejected", text)))
            except OSError as error:
                text = f"the job file cannot be read: {error.strerror}"
                bad.append((record, node.make(record, "rejected", text)))
            else:
                beside[f"{record.id}/description.json"] = made.description
                beside[f"{record.id}/script"] = made.script
                good.append(
                    record.enter(
                        "STAGING",
                        script=made.description["script"],
                        inputs=made.inputs,
                        targets=made.targets,
                        remote=True,
                    )
                )
            beside[f"{record.id}/job"] = data
        self.records.save_all(good, beside)
        self.answers.decide(bad)
        self.intake.submitted(good, "accepted")
        for record in good:
            log.info("%s accepted: %s", record.id, record.script)
        for record, decided in bad:
            log.info("%s rejected: %s", record.id, decided["message"])

    def _withdraw(self, batch: list[Record]) -> None:
        """ACCEPTED or STAGING to ANSWERING: cancelled before it was published."""
        beside = {}
        for record in batch:
            if self.records.read_bytes(record.id, "job") is None:
                with contextlib.suppress(OSError):
                    beside[f"{record.id}/job"] = self.intake.read(record)
        self.records.save_all((), beside)
        self.answers.decide((r, node.make(r, "cancelled", "cancelled")) for r in batch)

    # ---- there and back ----------------------------------------------------------------------

    def _stage(self, batch: list[Record]) -> None:
        """STAGING to PUBLISHING: carry everything, then make the intent durable."""
        connection = self._connect()
        if connection is None:
            return
        staged = connection.staging.stage(batch)
        session_id = connection.session.id
        self.records.save_all(r.enter("PUBLISHING", session=session_id) for r in staged.ready)
        self._note_waiting(staged.waiting)
        self._note_stuck(staged.stuck, "stage_in")
        self.answers.decide(
            (self.records[j], node.make(self.records[j], "stage_in", text))
            for j, text in staged.failed.items()
        )

    def _publish(self, batch: list[Record]) -> None:
        """PUBLISHING to PUBLISHED: one rename for each job, on the cluster."""
        connection = self._connect()
        if connection is None:
            return
        connection.session.publish({r.id: r.session or "" for r in batch})
        published = [r.enter("PUBLISHED", times={**r.times, "staged": now()}) for r in batch]
        self.records.save_all(published)
        self.intake.submitted(published, "staged")
        for record in published:
            log.info("%s published", record.id)

    def _cancel(self, batch: list[Record]) -> None:
        """Tell the cluster which published jobs are to stop."""
        connection = self._connect()
        if connection is not None:
            connection.session.cancel([r.id for r in batch])
            self._told.update(r.id for r in batch)

    def _miss(self, batch: list[Record]) -> None:
        """Count the censuses that did not list a published job; answer it when it is lost."""
        lost, counted = [], []
        for record in batch:
            if record.id in (self._census or {}):
                counted.append(replace(record, missing=0, missing_since=None))
                continue
            since = record.missing_since or now()
            counted.append(replace(record, missing=record.missing + 1, missing_since=since))
            if plan.is_lost(record.missing + 1, seconds_since(since)):
                lost.append(counted.pop())
        self.records.save_all(counted)
        text = "its files on the cluster were deleted"
        self.answers.decide((r, node.make(r, "lost", text)) for r in lost)

    def _collect(self, batch: list[Record]) -> None:
        """PUBLISHED to PLACING, or without outputs to ANSWERING."""
        connection = self._connect()
        if connection is None or self._census is None:
            return
        tickets: list[tuple[Record, Ticket]] = [
            (r, ticket_of(self._census[r.id][1])) for r in batch
        ]
        found = connection.collecting.collect(tickets, self.config.limits.stdout_bytes)
        times = {j: n["times"] for j, n in found.nodes.items()}
        self.answers.begin_placing((_timed(r, times), found.nodes[r.id]) for r in found.placing)
        self.answers.decide((_timed(r, times), found.nodes[r.id]) for r in found.answering)
        self._note_waiting(found.waiting)
        self._note_stuck(found.stuck, "stage_out")

    def _place(self, batch: list[Record]) -> None:
        """PLACING to ANSWERING or UNPLACING."""
        stuck, failed = self.answers.place(batch)
        expired = self._note_stuck(stuck, None)
        self.answers.begin_unplacing(expired)
        if failed or expired:
            self._act("unplace", [self.records[r.id] for r in (*failed, *expired)])

    def _answer(self, batch: list[Record]) -> None:
        """ANSWERING to CLEANING."""
        stuck = self.answers.answer(batch)
        self._note_waiting(stuck)
        for job, text in stuck.items():
            self.code = max(self.code, 75)
            self.ledger.note(f"answer {job}", f"{self.records[job].name}: {text}; tried again")
        for record in batch:
            if record.id not in stuck:
                log.info("%s answered: %s", record.id, record.name)

    def _clean(self, batch: list[Record]) -> None:
        """CLEANING to –."""
        far = any(r.remote for r in batch)
        connection = self._connect() if far else None
        keep = self.options.nocleanup
        purge = None
        if connection is not None:
            purge = lambda jobs: connection.session.purge(jobs, keep=keep)  # noqa: E731
        self.answers.clean(batch, purge)

    def _note_waiting(self, waiting: Mapping[str, str]) -> None:
        """Keep what jobs are waiting for, where that is news."""
        self.records.save_all(
            replace(self.records[j], message=text)
            for j, text in waiting.items()
            if self.records[j].message != text
        )

    def _note_stuck(self, stuck: Mapping[str, str], reason: str | None) -> list[Record]:
        """Keep what fails and may pass; after STUCK_S it is answered with the reason.

        Without a reason, the records that have waited for too long are returned.
        """
        expired, changed = [], []
        for job, text in stuck.items():
            record = self.records[job]
            since = record.stuck_since or now()
            noted = replace(record, message=text, stuck_since=since)
            if seconds_since(since) >= STUCK_S:
                expired.append(noted)
            elif noted != record:
                changed.append(noted)
        if stuck:
            self.code = max(self.code, 75)
            first = next(iter(stuck.values()))
            self.ledger.note(f"stuck {reason}", f"{len(stuck)} jobs wait: {first}")
        self.records.save_all(changed)
        if reason is not None:
            self.answers.decide((r, node.make(r, reason, str(r.message))) for r in expired)
        return expired


def _name(name: str) -> str:
    """Return a name of the dropbox as records hold it."""
    return files.from_bytes(os.fsencode(name))


def _timed(record: Record, times: Mapping[str, Mapping[str, str | None]]) -> Record:
    """Return the record with when the job started and ended."""
    known = {k: v for k, v in times[record.id].items() if v and k in ("started", "ended")}
    return replace(record, times={**record.times, **known})
