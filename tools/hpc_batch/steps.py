"""The steps of the plan: what each one does for a batch of jobs.

Every step may be repeated after a kill, and leaves a job where it is when the cluster, or a disk,
says no for now. What fails and may pass is waited for; after `plan.STUCK_S` it is answered with the
error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hpc_batch import logbook, mending, node, plan
from hpc_batch.answer import Answers
from hpc_batch.collecting import Ticket, ticket_of
from hpc_batch.config import Config
from hpc_batch.connection import Connection
from hpc_batch.errors import JobFileError
from hpc_batch.fitting import misfit, need_s
from hpc_batch.intake import Intake
from hpc_batch.node import Node
from hpc_batch.record import Record, now
from hpc_batch.records import Records
from hpc_batch.settling import wait_of
from hpc_batch.sight import Sight
from hpc_batch.state import State
from hpc_batch.trouble import Ledger
from hpc_batch.upkeep import Upkeep
from hpc_cluster import files

if TYPE_CHECKING:
    from hpc_batch.description import Shared

AGAIN_S = 0.1
"""What is to be rejected is checked once more after this."""


@dataclass
class Checked:
    """What came of checking a batch of drops."""

    shared: Shared
    """What was looked at once for all of them."""
    good: list[Record] = field(default_factory=list)
    bad: dict[str, Node] = field(default_factory=dict)
    """J: the answer."""
    papers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """J: what goes into its journal."""
    stuck: dict[str, str] = field(default_factory=dict)
    """J: what is wrong with a disk now."""


class Steps:
    """The steps over one state folder, in one pass."""

    def __init__(
        self,
        config: Config,
        state: State,
        records: Records,
        ledger: Ledger,
        connect: Callable[[], Connection | None],
        sight: Sight,
        upkeep: Upkeep,
        *,
        keep: bool,
    ) -> None:
        self._config, self._state, self._records, self._ledger = config, state, records, ledger
        self._connect = connect
        """Returns the pass's login; None where the cluster cannot be used."""
        self._keep = keep
        """Leave the jobs' data on the cluster, in `kept/`."""
        self.intake = Intake(config, state, records)
        """What takes drops, and tells their users how far they are."""
        self._answers = Answers(state, records, self.intake)
        self._sight = sight
        self._upkeep = upkeep
        self.perform: dict[plan.Step, Callable[[list[Record]], None]] = {
            "accept": self.accept,
            "check": self.check,
            "withdraw": self.withdraw,
            "stage": self.stage,
            "publish": self.publish,
            "collect": self.collect,
            "cancel": self.cancel,
            "miss": self.miss,
            "fit": self.fit,
            "place": self.place,
            "unplace": self.unplace,
            "answer": self.answer,
            "clean": self.clean,
        }

    def accept(self, batch: list[Record]) -> None:
        """INTENT to ACCEPTED, or without a drop to –."""
        self.intake.accept(batch)

    def check(self, batch: list[Record]) -> None:
        """ACCEPTED to STAGING, or with every problem to ANSWERING: read each drop once."""
        from hpc_batch.description import Shared  # no other step needs templates

        found = Checked(Shared(self._config))
        clock = self._state.clock()
        doubted = [record for record in batch if not self._check(record, clock, found)]
        if doubted:
            # RACE: a disk says "no such file" and "no permission" for a moment, too.
            time.sleep(AGAIN_S)
            found.shared = Shared(self._config)
        for record in doubted:
            found.bad.pop(record.id)
            self._check(record, clock, found)
        bad = [(self._records[job], decided) for job, decided in found.bad.items()]
        self._records.save_all(found.good, found.papers)
        self._answers.decide(bad, found.papers)
        self._note_stuck(found.stuck, "rejected")
        self.intake.accepted(found.good, found.papers)
        logbook.tell(f"{record.id} accepted: {record.script}" for record in found.good)
        logbook.tell(f"{record.id} rejected: {decided['message']}" for record, decided in bad)

    def _check(self, record: Record, clock: float, found: Checked) -> bool:
        """Check one drop, and note what is found; False: it is one to reject."""
        from hpc_batch.description import describe  # no other step needs templates

        papers: dict[str, Any] = {"job": ""}
        found.papers[record.id] = papers
        try:
            drop = self.intake.look(record)
            its_own = self._state.ahead.clock(record.id, drop.changed, clock)
            if drop.is_file and wait_of(drop, its_own, self._config)[0]:
                return True
            data = self.intake.text(drop)
            papers["job"] = files.from_bytes(data)
            made = describe(record.id, record.name, data, self._config, found.shared)
        except JobFileError as error:
            text = "; ".join(str(p) for p in error.problems)
            found.bad[record.id] = node.make(record, "rejected", text)
        except OSError as error:
            if error.errno in files.PASSING:
                where = f": {error.filename!r}" if error.filename is not None else ""
                found.stuck[record.id] = f"it cannot be checked: {error.strerror}{where}"
                return True
            text = f"the job file cannot be read: {error.strerror}"
            found.bad[record.id] = node.make(record, "rejected", text)
        else:
            script = files.from_bytes(made.script)
            papers = {"description": made.description, "script": script, "echo": made.echo}
            found.papers[record.id] = papers
            found.good.append(
                record.enter(
                    "STAGING",
                    script=made.description["script"],
                    inputs=made.inputs,
                    targets=made.targets,
                    layout=made.description["layout"],
                    need_s=need_s(made.description["time_limit"]),
                    remote=True,
                )
            )
        return record.id not in found.bad

    def withdraw(self, batch: list[Record]) -> None:
        """ACCEPTED or STAGING to ANSWERING: cancelled before it was published."""
        papers: dict[str, dict[str, Any]] = {}
        for record in batch:
            if record.phase == "ACCEPTED":
                try:
                    drop = self.intake.text(self.intake.look(record))
                    papers[record.id] = {"job": files.from_bytes(drop)}
                except OSError as error:
                    if error.errno in files.PASSING:
                        raise
        self._answers.decide(((r, node.make(r, "cancelled", "cancelled")) for r in batch), papers)

    # ---- there and back ----------------------------------------------------------------------

    def stage(self, batch: list[Record]) -> None:
        """STAGING to PUBLISHING: carry everything, then make the intent durable.

        STAGING to PUBLISHED: what the cluster has published, and the journal has lost.
        """
        connection = self._connect()
        if connection is None:
            self.intake.tell()
            return
        staged = connection.staging.stage(batch)
        session_id = connection.session.id
        self._records.save_all(r.enter("PUBLISHING", session=session_id) for r in staged.ready)
        self._are_published(staged.published)
        self._note_waiting(staged.waiting)
        self._note_stuck(staged.stuck, "stage_in")
        self._answers.decide(
            (self._records[j], node.make(self._records[j], "stage_in", text))
            for j, text in staged.failed.items()
        )

    def publish(self, batch: list[Record]) -> None:
        """PUBLISHING to PUBLISHED: one rename for each job, on the cluster."""
        connection = self._connect()
        if connection is None:
            return
        answer = connection.session.begin_publish({r.id: r.session or "" for r in batch})
        self._upkeep.ask_after_publishing(connection)
        answer.get()
        self._are_published(batch)

    def _are_published(self, batch: list[Record]) -> None:
        """PUBLISHING, or STAGING, to PUBLISHED."""
        published = [r.enter("PUBLISHED", times={**r.times, "staged": now()}) for r in batch]
        self._records.save_all(published)
        self.intake.submitted(published, "staged")
        logbook.tell(f"{record.id} published" for record in published)

    def cancel(self, batch: list[Record]) -> None:
        """Tell the cluster which published jobs are to stop."""
        connection = self._connect()
        if connection is not None:
            connection.session.cancel([r.id for r in batch])
            self._sight.told.update(r.id for r in batch)

    def miss(self, batch: list[Record]) -> None:
        """Count the censuses that did not list a published job; answer it when it is lost."""
        lost: list[Record] = []
        counted: list[Record] = []
        for record in batch:
            if record.id in (self._sight.census or {}):
                counted.append(replace(record, missing=0, missing_since=None, missing_at=None))
                continue
            if record.missing_at is None:
                at = self._state.elapsed.seconds()
                record = replace(record, missing_since=now(), missing_at=at)
            record = replace(record, missing=record.missing + 1)
            missing_s = self._state.elapsed.age_s(record.missing_at)
            (lost if plan.is_lost(record.missing, missing_s) else counted).append(record)
        self._records.save_all(counted)
        text = "its files on the cluster were deleted"
        self._answers.decide((r, node.make(r, "lost", text)) for r in lost)

    def fit(self, batch: list[Record]) -> None:
        """Let jobs wait that no pilot of this configuration can run; answer them in the end.

        They fitted when they were taken: somebody has shortened the walltime since, and may mend
        it. Those that fit again forget that they did not.
        """
        walltime = self._config.hpc.walltime
        unfit = {r.id: misfit(r.need_s, walltime) for r in batch}
        self._records.save_all(
            replace(r, message=None, stuck_since=None, stuck_at=None)
            for r in batch
            if unfit[r.id] is None
        )
        self._note_stuck({job: text for job, text in unfit.items() if text}, "rejected")

    def collect(self, batch: list[Record]) -> None:
        """PUBLISHED to PLACING, or without outputs to ANSWERING."""
        connection = self._connect()
        census = self._sight.census
        if connection is None or census is None:
            return
        tickets: list[tuple[Record, Ticket]] = [(r, ticket_of(census[r.id][1])) for r in batch]
        found = connection.collecting.collect(
            tickets, self._config.limits.stdout_bytes, self._sight.collected
        )
        times = {j: n["times"] for j, n in found.nodes.items()}
        doubted = self._doubt(found.doubts)
        self._answers.begin_placing(
            (_timed(r, times), found.nodes[r.id]) for r in found.placing if r.id not in doubted
        )
        self._answers.decide(
            (_timed(r, times), found.nodes[r.id]) for r in found.answering if r.id not in doubted
        )
        self._note_waiting(found.waiting)
        self._note_stuck(found.stuck, "stage_out")

    def _doubt(self, doubts: Mapping[str, str]) -> frozenset[str]:
        """Count looks that did not find everything; return the jobs that are looked for again."""
        counted = []
        for job, text in doubts.items():
            record = self._records[job]
            if record.doubted_at is None:
                at = self._state.elapsed.seconds()
                record = replace(record, doubted_since=now(), doubted_at=at)
            record = replace(record, doubts=record.doubts + 1, message=text)
            if not plan.is_believed(record.doubts, self._state.elapsed.age_s(record.doubted_at)):
                counted.append(record)
        self._records.save_all(counted)
        return frozenset(r.id for r in counted)

    def mend(self, record: Record) -> bool:
        """Back to the phase that writes what is damaged; False where none does. Raises OSError."""
        mended = mending.mended(record)
        if mended is not None:
            self._records.save_all([mended])
        return mended is not None

    def unplace(self, batch: list[Record]) -> None:
        """UNPLACING to ANSWERING."""
        expired = self._note_stuck(self._answers.unplace(batch), None)
        self._answers.give_up_unplacing(expired)

    def place(self, batch: list[Record]) -> None:
        """PLACING to ANSWERING or UNPLACING."""
        stuck, failed = self._answers.place(batch)
        expired = self._note_stuck(stuck, None)
        self._answers.begin_unplacing(expired)
        if failed or expired:
            self.unplace([self._records[r.id] for r in (*failed, *expired)])

    def answer(self, batch: list[Record]) -> None:
        """ANSWERING to CLEANING."""
        stuck = self._answers.answer(batch)
        self._note_waiting(stuck)
        for job, text in stuck.items():
            self._ledger.note(f"answer {job}", f"{self._records[job].name}: {text}", code=75)
        answered = [record for record in batch if record.id not in stuck]
        logbook.tell(f"{record.id} answered: {record.name}" for record in answered)

    def clean(self, batch: list[Record]) -> None:
        """CLEANING to –."""
        far = any(r.remote for r in batch)
        connection = self._connect() if far else None
        keep = self._keep
        purge = None
        if connection is not None:
            self._upkeep.ask_before_cleaning(connection)
            purge = lambda jobs: connection.session.begin_purge(jobs, keep=keep)  # noqa: E731
        self._answers.clean(batch, purge)

    def _note_waiting(self, waiting: Mapping[str, str]) -> None:
        """Keep what jobs are waiting for, where that is news."""
        self._records.save_all(
            replace(self._records[j], message=text)
            for j, text in waiting.items()
            if self._records[j].message != text
        )

    def _note_stuck(self, stuck: Mapping[str, str], reason: str | None) -> list[Record]:
        """Keep what fails and may pass; after `plan.STUCK_S` it is answered with the reason.

        Without a reason, the records that have waited for too long are returned.
        """
        expired, changed = [], []
        for job, text in stuck.items():
            record = self._records[job]
            noted = replace(record, message=text)
            if record.stuck_at is None:
                at = self._state.elapsed.seconds()
                noted = replace(noted, stuck_since=now(), stuck_at=at)
            if self._state.elapsed.age_s(noted.stuck_at) >= plan.STUCK_S:
                expired.append(noted)
            elif noted != record:
                changed.append(noted)
        if stuck:
            job, text = next(iter(stuck.items()))
            others = f" and {len(stuck) - 1} more" if len(stuck) > 1 else ""
            words = f"{self._records[job].name}{others} cannot go on: {text}"
            self._ledger.note(f"stuck {reason}", words, code=75)
        self._records.save_all(changed)
        if reason is not None:
            self._answers.decide((r, node.make(r, reason, str(r.message))) for r in expired)
        return expired


def _timed(record: Record, times: Mapping[str, Mapping[str, str | None]]) -> Record:
    """Return the record with when the job started and ended."""
    known = {k: v for k, v in times[record.id].items() if v and k in ("started", "ended")}
    return record.but(times={**record.times, **known})
