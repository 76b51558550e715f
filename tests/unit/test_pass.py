"""What a pass concludes from what it sees, and from what it does not see."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from desk import NAMES, Desk, Willing, making
from world import World

from hpc_batch import plan, settling
from hpc_batch.record import Record
from hpc_batch.records import Records
from hpc_batch.session import Answer
from hpc_batch.sight import Sight
from hpc_batch.state import hold
from hpc_batch.submitter import Options, Pass
from hpc_cluster import effects

SESSION, OTHER = Willing.id, "6" * 16


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A desk over two jobs that were taken."""
    with making(tmp_path) as make:
        made = make("desk")
        made.take()
        yield made


def published(desk: Desk) -> list[Record]:
    desk.records.save_all([r.enter("PUBLISHED", session=SESSION) for r in desk.records])
    return list(desk.records)


def test_an_incoming_ticket_of_another_session_is_none(desk: Desk) -> None:
    """To publish the job again, because litter lies there, would go on for ever."""
    (record, *_) = published(desk)
    begun = Pass(desk.here.config, Options(), desk.state)
    begun.sight.counted = frozenset([record.id])
    for session, step in ((SESSION, "publish"), (OTHER, "miss")):
        begun.sight.census = {record.id: ("incoming", f"{record.id}.{session}")}
        assert begun._next(record) == step
    begun.access.close()


def test_a_cluster_that_does_not_answer_says_nothing_of_any_job(tmp_path: Path) -> None:
    here = World(tmp_path, hpc_env={"scripts": "/nowhere"}, remote={"python": "/nowhere"})
    with hold(here.config) as state:
        state.begin()
        desk = Desk(here, state)
        for name in NAMES:
            desk.drop(name)
        desk.take()
        published(desk)
    assert here.sweep() != 0
    assert {(r["phase"], r["missing"]) for r in here.records()} == {("PUBLISHED", 0)}
    assert [t["what"] for t in here.status()["trouble"]] == ["cluster"]


def test_where_a_batch_fails_all_go_on_but_the_job_that_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = World(tmp_path, remote={"python": "/nowhere"})
    for name in "abcd":
        here.drop(name, "say", args={"words": name})
    real = effects.rename

    def rename(source: effects.Path, target: effects.Path) -> None:
        if os.fsdecode(source).endswith("/c.job"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), source)
        real(source, target)

    monkeypatch.setattr(effects, "rename", rename)
    for _ in range(2):
        here.sweep()
    phases = {r["name"]: r["phase"] for r in here.records()}
    assert phases == {**dict.fromkeys(["a.job", "b.job", "d.job"], "STAGING"), "c.job": "INTENT"}
    (job,) = [r["id"] for r in here.records() if r["name"] == "c.job"]
    assert f"accept {job}" in [t["what"] for t in here.status()["trouble"]]


def test_whether_somebody_writes_a_drop_is_asked_again_after_it_was_taken(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who opened it before the rename writes on, and what was read would be half of it."""
    monkeypatch.setattr(settling, "QUIET_S", 0.0)
    desk.here.drop_text("c", "script: say\nargs:\n  words: x\n")  # without an end mark
    desk.take()
    steps = desk.steps(None)
    (written,) = [r.id for r in desk.records if r.name == "c.job"]
    with open(desk.state.of_job(written, "drop"), "a"):
        steps.check(list(desk.records))
        assert {r.id for r in desk.records if r.phase == "ACCEPTED"} == {written}
    steps.check([desk.records[written]])
    assert {r.phase for r in desk.records} == {"STAGING"}


class Asking(Willing):
    """A cluster that looks whether what it is asked for was written down before."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self._desk = desk

    def begin_publish(self, jobs: dict[str, str]) -> Answer[None]:
        on_disk = Records(self._desk.state.path("journal")).load()
        assert {on_disk[job].phase for job in jobs} == {"PUBLISHING"}
        return super().begin_publish(jobs)


def test_that_a_ticket_will_be_published_is_durable_before_it_is(desk: Desk) -> None:
    """And it is the ticket of the session that staged the job, whoever publishes it."""
    cluster = Asking(desk)
    steps, jobs = desk.steps(cluster), {r.id for r in desk.records}
    steps.check(list(desk.records))
    steps.stage(list(desk.records))
    assert {r.phase for r in desk.records} == {"PUBLISHING"}
    cluster.id = OTHER
    steps.publish(list(desk.records))
    assert cluster.published == dict.fromkeys(jobs, SESSION)


def test_what_may_be_on_the_cluster_since_it_was_checked_is_purged_there(desk: Desk) -> None:
    """Staging may have been begun, and cut, before the job was withdrawn."""
    cluster = Willing()
    steps, jobs = desk.steps(cluster), [r.id for r in desk.records]
    for step in (steps.check, steps.withdraw, steps.answer, steps.clean):
        step(list(desk.records))
    assert cluster.purged == jobs and len(desk.records) == 0


def test_a_ticket_that_is_found_again_was_never_missing(desk: Desk) -> None:
    """Else two short disappearances, months apart, would be one long one."""
    records, sight = published(desk), Sight(census={})
    steps = desk.steps(None, sight)
    steps.miss(records)
    assert {(r.missing, r.missing_at is None) for r in desk.records} == {(1, False)}
    sight.census = {r.id: ("ready", f"{r.id}.a0c0") for r in records}
    steps.miss(list(desk.records))
    assert {(r.missing, r.missing_since, r.missing_at) for r in desk.records} == {(0, None, None)}


def test_what_does_not_pass_is_answered_in_the_end(desk: Desk) -> None:
    (record, *_), steps = desk.records, desk.steps(None)
    steps._note_stuck({record.id: "no room"}, "stage_in")
    assert desk.records[record.id].phase == "ACCEPTED"
    stuck = desk.records[record.id]
    assert stuck.stuck_at is not None
    desk.records.save_all([replace(stuck, stuck_at=stuck.stuck_at - plan.STUCK_S)])
    steps._note_stuck({record.id: "no room"}, "stage_in")
    assert desk.records[record.id].phase == "ANSWERING"
    assert desk.records.document(record.id, "answer")["reason"] == "stage_in"
