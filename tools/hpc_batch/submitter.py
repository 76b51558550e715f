"""The submitter: one pass, started by cron, from whatever state the last one left.

A pass observes (dropbox, records, the cluster's census), asks the plan for each job's next step,
and performs the steps in the plan's order, each for all its jobs as one batch. It logs in at most
once, and only when a job needs the cluster. A step that fails for one job does not stop the others;
what the cluster did not answer is left for the next pass. While big files travel, or for
`[cronjob] linger` seconds, the pass sweeps again and again.

The steps themselves stand in `steps`, their effects in the rooms that those call.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from hpc_batch import plan
from hpc_batch.config import Config
from hpc_batch.connection import Connection
from hpc_batch.errors import FarEndError, RemoteError, StorageError
from hpc_batch.fitting import misfit
from hpc_batch.intake import Drop, Intake, Listing, look, may_submit, unanswerable
from hpc_batch.policy import policy
from hpc_batch.record import Record, Records, now, seconds_since
from hpc_batch.report import Report
from hpc_batch.settling import judge
from hpc_batch.state import Busy, State, check_home, hold
from hpc_batch.steps import Census, Steps
from hpc_batch.trouble import Ledger
from hpc_batch.waiting import wait_of
from hpc_cluster import files

log = logging.getLogger("hpc_batch")

OUTAGE_S = 30 * 60
"""An unreachable cluster is told to the operator after so long."""

CANCEL_S = 60
"""A cancel file without a job is removed after so long."""

SWEEP_S = 24 * 3600
"""The cluster is swept for orphans once in so long."""

PERIOD_S = 2.0
"""Between two sweeps of one pass."""

LOG_BYTES = 10 << 20
"""A log longer than this becomes `log.1`."""

LINE = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z")

PASSING_KINDS = frozenset(("ENOSPC", "EDQUOT", "EIO", "ESTALE", "bug", "batch"))
"""What the far end may say that no change of the configuration mends."""

OF_ONE_JOB = frozenset(("usage", "bug", "description", "ticket"))
"""What the far end says of a request that one of its jobs may have spoilt; the session goes on."""


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
        with hold(config) as state, _logging(state, options):
            this = Pass(config, options, state)
            code = this.run()
    except Busy as busy:
        log.info("another pass holds %s", busy)
        return 0
    except OSError as error:
        raise StorageError(f"{error.filename}: {error.strerror}; tried again") from error
    for message in this.ledger.messages:
        print(f"hpc_batch: {message}", file=sys.stderr)
    return code


@contextlib.contextmanager
def _logging(state: State, options: Options) -> Iterator[None]:
    """Write one line per transition to `state/log`, and with --debug to stderr."""
    path = state.path("log")
    if path.exists() and path.stat().st_size > LOG_BYTES:
        files.rename(str(path), str(state.path("log.1")))
    # Names may be any bytes; an error of logging itself would be mailed by cron.
    file = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handlers: list[logging.Handler] = [file]
    if options.debug:
        handlers.append(logging.StreamHandler())
    log.setLevel(logging.DEBUG if options.debug else logging.INFO)
    for handler in handlers:
        handler.setFormatter(LINE)
        log.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()


class Pass:
    """One pass over everything."""

    def __init__(self, config: Config, options: Options, state: State) -> None:
        state.begin()
        self.config, self.options, self.state = config, options, state
        self.records = Records(state.path("jobs"))
        self.ledger = Ledger(state)
        self.intake = Intake(config, state, self.records)
        self.report = Report(config, state)
        self.connection: Connection | None = None
        self._refused = False
        """The cluster could not be used in this pass; it is not tried again."""
        self._paused = False
        self._counted: frozenset[str] = frozenset()
        """Jobs that were published before the census was asked for."""
        self._cancelled: frozenset[str] = frozenset()
        self.steps = Steps(
            config, state, self.records, self.ledger, self._connect, keep=options.nocleanup
        )
        check_home(self.records, config)

    # ---- the pass ----------------------------------------------------------------------------

    def run(self) -> int:
        """Sweep until nothing is under way, write the status, and return the exit code."""
        try:
            self._serve()
        finally:
            self._disconnect()
            self.ledger.end("cluster", "pilots", "queue")
            if self.ledger.code == 75 and self.ledger.lasts_s("cluster") > OUTAGE_S:
                self.ledger.code = 69
            self.report.end(self.ledger.code, self.ledger.entries())
            self.ledger.save()
        return self.ledger.code

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
        self._observe_cluster()
        self._cancelled = self.intake.cancelled()
        for step in plan.ORDER:
            if step == "check":
                self._take(listing)
                self._cancelled = self.intake.cancelled()
            batch = [r for r in self.records if self._next(r) == step]
            if batch and not (self._paused and step == "stage"):
                self._act(step, batch)
        self._keep_pilots()
        self._tidy_cluster()
        self.report.look(self.records, self.steps.census)
        for record, shown, message in self.report.news(self.records):
            self.intake.submitted([record], shown, message)
        self.report.write(self.ledger.entries())

    def _next(self, record: Record) -> plan.Step:
        place, name = (self.steps.census or {}).get(record.id, (None, ""))
        if place == "incoming" and name != f"{record.id}.{record.session}":
            place = None  # litter of a session that was cut off
        return plan.next_step(
            plan.Seen(
                phase=record.phase,
                cancel=record.id in self._cancelled,
                told=record.id in self.steps.told,
                counted=record.id in self._counted,
                ticket=place,
                missing=record.missing,
                fits=record.stuck_since is None
                and misfit(record.need_s, self.config.hpc.walltime) is None,
            )
        )

    def _act(self, step: plan.Step, batch: list[Record]) -> None:
        """Perform a step for a batch; where that fails, for each job by itself."""
        try:
            self.steps.perform[step](batch)
        except Exception as error:
            alone = isinstance(error, FarEndError) and error.kind in OF_ONE_JOB
            if isinstance(error, RemoteError) and not alone:
                self._lost(error)
            elif len(batch) > 1:
                for record in batch:
                    self._act(step, [record])
            else:
                self._stumbled(step, batch[0], error)

    def _stumbled(self, step: plan.Step, record: Record, error: Exception) -> None:
        """Note an error that nobody foresaw; the job stays where it is, and is tried again."""
        code = 75 if isinstance(error, OSError) else 70
        text = f"{record.name}: cannot {step} ({type(error).__name__}: {error})"
        log.error("%s %s", record.id, text, exc_info=not isinstance(error, OSError))
        self.ledger.note(f"{step} {record.id}", f"{text}; tried again by the next pass", code=code)

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
        code = 75
        if isinstance(error, RemoteError) and getattr(error, "kind", "") not in PASSING_KINDS:
            code = error.exit_code
        patience = 0 if code != 75 or isinstance(error, FarEndError) else OUTAGE_S
        hint = getattr(error, "hint", "")
        text = f"cluster {self.config.remote.host or 'local'}: {error}"
        log.warning("%s; %s", text, hint)
        self.report.reachable(text)
        self.ledger.note("cluster", f"{text}; {hint}" if hint else text, patience, code=code)

    def _observe_cluster(self) -> None:
        """Ask for the census when a published job may have one."""
        self.steps.census, self._counted = None, frozenset()
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
        found: Census = {}
        places: list[tuple[plan.Place, tuple[str, ...]]] = [
            ("incoming", census.incoming),
            ("ready", census.ready),
            ("running", census.running),
            ("done", census.done),
        ]
        for place, names in places:
            found.update((name.split(".")[0], (place, name)) for name in names)
        self.steps.census, self._counted = found, frozenset(published)

    def _keep_pilots(self) -> None:
        """Have the cluster look after its pilots while published jobs are waiting for them."""
        waiting = any(r.phase == "PUBLISHED" for r in self.records)
        # The pass that collects the last job is the one that may see the end of a trouble.
        concerned = waiting or any(self.ledger.lasts_s(what) > 0 for what in ("pilots", "queue"))
        if not concerned or self.connection is None:
            return
        try:
            kept = self.connection.session.pilots(
                policy(self.config, self.options.email, submit=not self._paused)
            )
        except RemoteError as error:
            self._lost(error)
            return
        self.report.pilots = [dict(p) for p in kept.pilots]
        wait = wait_of(kept.pilots, kept.trouble, paused=self._paused)
        self.report.wait = wait
        for pilot in kept.submitted:
            log.info("pilot %s submitted", pilot)
        for job in kept.reaped:
            log.info("%s reaped from a dead pilot", job)
        if kept.trouble is None:
            self.ledger.over("pilots")
        else:
            message = f"pilots: {kept.trouble.get('message')}"
            self.ledger.note("pilots", message, next_try=kept.trouble.get("next"))
        if wait.obstacle:
            self.ledger.note("queue", f"jobs wait for {wait.message}")
        else:
            self.ledger.over("queue")

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

    def _take(self, listing: Listing) -> None:
        """Take the drops that are settled, and act on cancel files; where a disk says no, later."""
        if listing.drops or listing.cancels:
            try:
                self._admit(listing, self.state.clock())
            except OSError as error:
                text = f"no drop can be taken: {error.strerror}: {error.filename!r}; tried again"
                self.ledger.note("taking", text, code=75)

    def _admit(self, listing: Listing, clock: float) -> None:
        """Take what is settled by this clock of the dropbox."""
        in_flight = {r.name: r for r in self.records if r.phase not in ("ANSWERING", "CLEANING")}
        busy = {r.name for r in self.records if r.phase != "CLEANING"}
        settled = []
        for drop in listing.drops:
            name = _name(drop.name)
            why = unanswerable(drop)
            if why is not None:
                self.ledger.note(f"drop {name!r}", f"{name!r} in the dropbox {why}")
            elif name not in busy and not self._paused and self._is_settled(drop, listing, clock):
                settled.append(drop)
        taken = self.intake.take(settled)
        for record in taken:
            log.info("%s taken: %s", record.id, record.name)
            in_flight[record.name] = record
        for name in listing.cancels:
            self._take_cancel(name, in_flight.get(_name(name)), listing, clock)

    def _is_settled(self, drop: Drop, listing: Listing, clock: float) -> bool:
        if drop.name in listing.cancels:
            return True
        try:
            path = str(self.config.cronjob.dropbox / drop.name)
            return judge(path, clock, self.config) == "take"
        except FileNotFoundError:
            return False  # RACE: withdrawn since the dropbox was listed

    def _take_cancel(
        self, name: str, record: Record | None, listing: Listing, clock: float
    ) -> None:
        """Give a cancel file to the job in flight; remove it when there is none."""
        path = self.config.cronjob.dropbox / f"{name}.cancel"
        if not may_submit(path.lstat().st_uid, self.config.cronjob.accept_from):
            text = f"{path.name!r} is of a user who is not in [cronjob] accept_from; left alone"
            self.ledger.note(f"cancel {name!r}", text)
            return
        if record is not None:
            log.info("%s asked to cancel", record.id)
            self.intake.cancel(name, record.id)
            return
        with contextlib.suppress(OSError):
            waiting = any(d.name == name for d in listing.drops)
            if not waiting and clock - path.lstat().st_ctime >= CANCEL_S:
                files.unlink(str(path))
                self.ledger.messages.append(f"{name + '.cancel'!r}: there is no such job; removed")


def _name(name: str) -> str:
    """Return a name of the dropbox as records hold it."""
    return files.from_bytes(os.fsencode(name))
