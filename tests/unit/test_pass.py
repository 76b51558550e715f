"""What a pass concludes from what it sees, and from what it does not see."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from desk import Desk
from world import World

from hpc_batch import plan, settling
from hpc_batch.listing import look
from hpc_batch.record import Record
from hpc_batch.records import Records
from hpc_batch.staging import Staged
from hpc_batch.state import hold
from hpc_batch.submitter import Options, Pass

SESSION, OTHER = "5" * 16, "6" * 16


@pytest.fixture
def begun(tmp_path: Path) -> Iterator[Pass]:
    """A pass over four jobs that were taken."""
    here = World(tmp_path)
    with hold(here.config) as state:
        state.begin()
        desk = Desk(here, state)
        for name in "abcd":
            here.drop_text(name, "script: say\nargs:\n  words: x\n")
        desk.take()
        made = Pass(here.config, Options(), state)
        yield made
        made.access.close()


def published(begun: Pass) -> list[Record]:
    begun.records.save_all([r.enter("PUBLISHED", session=SESSION) for r in begun.records])
    return list(begun.records)


def test_an_incoming_ticket_of_another_session_is_none(begun: Pass) -> None:
    """To publish the job again, because litter lies there, would go on for ever."""
    record, *others = published(begun)
    begun.sight.counted = frozenset(r.id for r in (record, *others))
    for session, step in ((SESSION, "publish"), (OTHER, "miss")):
        begun.sight.census = {record.id: ("incoming", f"{record.id}.{session}")}
        assert begun._next(record) == step


def test_a_cluster_that_does_not_answer_says_nothing_of_any_job(
    begun: Pass, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = published(begun)
    begun.sight.census = {}  # of the sweep before
    begun.sight.counted = frozenset(r.id for r in records)
    monkeypatch.setattr(begun.access, "connect", lambda: None)
    begun._observe_cluster(look(begun.config.cronjob.dropbox))
    assert {begun._next(r) for r in records} == {"wait"}


def test_where_a_batch_fails_all_go_on_but_the_job_that_cannot(
    begun: Pass, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = list(begun.records)[2].id

    def check(batch: list[Record]) -> None:
        if any(r.id == bad for r in batch):
            raise OSError(errno.EIO, os.strerror(errno.EIO), "/somewhere")
        begun.records.save_all([r.enter("STAGING") for r in batch])

    monkeypatch.setitem(begun.steps.perform, "check", check)
    begun._act("check", list(begun.records))
    assert {r.id for r in begun.records if r.phase == "ACCEPTED"} == {bad}
    assert [e["what"] for e in begun.ledger.entries()] == [f"check {bad}"]


def test_whether_somebody_writes_a_drop_is_asked_again_after_it_was_taken(
    begun: Pass, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who opened it before the rename writes on, and what was read would be half of it."""
    monkeypatch.setattr(settling, "QUIET_S", 0.0)
    written = list(begun.records)[1].id
    with open(begun.state.of_job(written, "drop"), "a"):
        begun.steps.check(list(begun.records))
        assert {r.id for r in begun.records if r.phase == "ACCEPTED"} == {written}
    begun.steps.check([begun.records[written]])
    assert {r.phase for r in begun.records} == {"STAGING"}


class Cluster:
    """A connection that notes what it is asked for, and whether that was written down before."""

    def __init__(self, begun: Pass) -> None:
        self._begun = begun
        self.published: dict[str, str] = {}
        self.purged: list[str] = []
        self.staging = self.session = self
        self.id = SESSION

    def stage(self, batch: list[Record]) -> Staged:
        return Staged(ready=batch)

    def begin_publish(self, jobs: dict[str, str]) -> Any:
        on_disk = Records(self._begun.state.path("journal")).load()
        assert {on_disk[job].phase for job in jobs} == {"PUBLISHING"}
        self.published.update(jobs)
        return self

    def publish(self, jobs: dict[str, str]) -> None:
        self.begin_publish(jobs)

    def get(self) -> None:
        return

    def purge(self, jobs: list[str], *, keep: bool) -> frozenset[str]:
        self.purged += jobs
        return frozenset(jobs)


@pytest.fixture
def cluster(begun: Pass, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster(begun)
    monkeypatch.setattr(settling, "QUIET_S", 0.0)
    monkeypatch.setattr(begun.access, "connect", lambda: made)
    monkeypatch.setattr(begun.upkeep, "ask_after_publishing", lambda connection: None)
    monkeypatch.setattr(begun.upkeep, "ask_before_cleaning", lambda connection: None)
    return made


def test_that_a_ticket_will_be_published_is_durable_before_it_is(
    begun: Pass, cluster: Cluster
) -> None:
    """And it is the ticket of the session that staged the job, whoever publishes it."""
    jobs = {r.id for r in begun.records}
    begun.steps.check(list(begun.records))
    begun.steps.stage(list(begun.records))
    assert {r.phase for r in begun.records} == {"PUBLISHING"}
    cluster.id = OTHER
    begun.steps.publish(list(begun.records))
    assert cluster.published == dict.fromkeys(jobs, SESSION)


def test_what_may_be_on_the_cluster_since_it_was_checked_is_purged_there(
    begun: Pass, cluster: Cluster
) -> None:
    """Staging may have been begun, and cut, before the job was withdrawn."""
    jobs = [r.id for r in begun.records]
    begun.steps.check(list(begun.records))
    begun.steps.withdraw(list(begun.records))
    begun.steps.answer(list(begun.records))
    begun.steps.clean(list(begun.records))
    assert cluster.purged == jobs and len(begun.records) == 0


def test_a_ticket_that_is_found_again_was_never_missing(begun: Pass) -> None:
    """Else two short disappearances, months apart, would be one long one."""
    records = published(begun)
    begun.sight.census = {}
    begun.steps.miss(records)
    assert {(r.missing, r.missing_at is None) for r in begun.records} == {(1, False)}
    begun.sight.census = {r.id: ("ready", f"{r.id}.a0c0") for r in records}
    begun.steps.miss(list(begun.records))
    assert {(r.missing, r.missing_since, r.missing_at) for r in begun.records} == {(0, None, None)}


def test_what_does_not_pass_is_answered_in_the_end(begun: Pass) -> None:
    (record, *_) = begun.records
    begun.steps._note_stuck({record.id: "no room"}, "stage_in")
    assert begun.records[record.id].phase == "ACCEPTED"
    stuck = begun.records[record.id]
    assert stuck.stuck_at is not None
    begun.records.save_all([replace(stuck, stuck_at=stuck.stuck_at - plan.STUCK_S)])
    begun.steps._note_stuck({record.id: "no room"}, "stage_in")
    assert begun.records[record.id].phase == "ANSWERING"
    assert begun.records.document(record.id, "answer")["reason"] == "stage_in"
