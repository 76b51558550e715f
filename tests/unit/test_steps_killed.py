"""The service host's own steps, killed before any of their effects, or lied to about it.

Taking drops, answering, cleaning: each is begun, killed, and begun again from what lies on the
disk, as the next pass begins it; between the two a user may have dropped the same name again.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from desk import NAMES, Desk, making
from kernel import Kernel

from hpc_batch import node, placing
from hpc_batch.intake import ANSWER_BYTES
from hpc_batch.listing import look
from hpc_batch.record import Target
from hpc_cluster import effects


@pytest.fixture
def desks(tmp_path: Path) -> Iterator[Callable[[str], Desk]]:
    with making(tmp_path) as make:
        yield make


@pytest.fixture
def decided(desks: Callable[[str], Desk]) -> Desk:
    """A desk whose jobs have answers, which are still to come out."""
    desk = desks("decided")
    desk.take()
    desk.decide()
    return desk


def points() -> Iterator[int]:
    return itertools.count()


def taken(desk: Desk) -> None:
    """Every drop is where it was dropped, or is a job's with a record and a reserved answer."""
    ours = desk.inner("drop")
    assert ours == {r.id for r in desk.records if r.phase == "ACCEPTED"}
    assert ours <= desk.inner("answer")


@pytest.mark.parametrize("fault", ["kills", "lies"])
def test_a_drop_is_in_the_dropbox_or_ours_and_never_lost(
    desks: Callable[[str], Desk], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    kernel = Kernel(monkeypatch)
    for at in points():
        desk = desks(str(at))
        happened = getattr(kernel, fault)(at, desk.take)
        desk.again()
        left = {d.name for d in look(desk.here.dropbox).drops}
        jobs = {r.name for r in desk.records if r.id in desk.inner("drop")}
        assert left | jobs == set(NAMES)
        assert not left & jobs
        assert desk.inner("drop") <= {r.id for r in desk.records}
        for name in sorted(jobs):
            desk.drop(name)  # a user drops the same name again
        desk.take()
        taken(desk)
        assert sorted(r.name for r in desk.records) == sorted(NAMES)
        assert {d.name for d in look(desk.here.dropbox).drops} == jobs
        if not happened:
            return


def test_a_record_that_could_not_be_saved_is_what_stands_on_the_disk(
    desks: Callable[[str], Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass goes on after an error, and must not do again what it has written down as done."""
    kernel = Kernel(monkeypatch)
    for at in points():
        desk = desks(str(at))
        desk.take()
        happened = kernel.lies(at, desk.decide)
        known = {r.id: r.phase for r in desk.records}
        desk.again()
        assert {r.id: r.phase for r in desk.records} == known
        if not happened:
            return


@pytest.mark.parametrize("fault", ["kills", "lies"])
def test_an_answer_comes_out_once_and_whole(
    desks: Callable[[str], Desk], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    kernel = Kernel(monkeypatch)
    for at in points():
        desk = desks(str(at))
        unread = desk.here.dropbox / "b.job.finished"
        unread.write_text("job:\n    status: old\n")
        desk.take()
        ids = {r.name: r.id for r in desk.records}
        desk.decide()
        happened = getattr(kernel, fault)(at, desk.answer)
        for name, found in desk.finished().items():
            if found["status"] != "old":
                assert found["message"] == "processed OK", name
        desk.again()
        desk.answer()
        assert {r.phase for r in desk.records} == {"CLEANING"}
        found = desk.finished()
        assert sorted(found) == ["a.job.finished", "b.job.finished", "b.job.finished.1"]
        assert found["b.job.finished.1"]["status"] == "old"
        assert {n: found[f"{n}.finished"]["id"] for n in NAMES} == ids
        if not happened:
            return


def test_a_late_answer_does_not_come_again_over_one_that_was_read(
    desks: Callable[[str], Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel(monkeypatch)
    for at in points():
        desk = desks(str(at))
        desk.take()
        desk.decide()
        happened = kernel.kills(at, desk.answer)
        read = sorted(desk.finished())
        for name in read:
            (desk.here.dropbox / name).unlink()
        desk.again()
        desk.answer()
        assert sorted([*read, *desk.finished()]) == [f"{name}.finished" for name in NAMES]
        if not happened:
            return


@pytest.mark.parametrize("fault", ["kills", "lies"])
def test_a_record_goes_last_and_only_when_the_cluster_is_clean(
    desks: Callable[[str], Desk], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    kernel = Kernel(monkeypatch)
    for at in points():
        desk = desks(str(at))
        desk.take()
        desk.decide()
        desk.answer()
        far = [replace(r, remote=True) for r in desk.records]
        desk.records.save_all(far)
        purged: set[str] = set()

        def purge(jobs: list[str], done: set[str] = purged) -> frozenset[str]:
            done.update(jobs)
            return frozenset(jobs)

        desk.clean(lambda jobs: frozenset())
        assert len(desk.records) == len(NAMES)
        happened = getattr(kernel, fault)(at, partial(desk.clean, purge))
        desk.again()
        for record in far:
            assert record.id in desk.records or record.id in purged
            assert record.id in desk.records or record.id not in desk.inner("drop")
        desk.clean(purge)
        assert len(desk.records) == 0
        assert not desk.inner("drop") | desk.inner("answer") | desk.inner("cancel")
        assert sorted(desk.finished()) == [f"{name}.finished" for name in NAMES]
        lines = desk.state.path("history.jsonl").read_text().splitlines()
        assert len(lines) >= len(NAMES)
        if not happened:
            return


def test_a_job_whose_answer_is_still_reserved_is_answered_before_it_is_cleaned(
    decided: Desk,
) -> None:
    """A look that found no J.answer, on a file server that was wrong, made it CLEANING."""
    decided.records.save_all([r.enter("CLEANING") for r in decided.records])
    decided.clean(frozenset)
    assert {r.phase for r in decided.records} == {"ANSWERING"}
    assert len(decided.inner("drop")) == len(NAMES)
    decided.answer()
    assert sorted(decided.finished()) == [f"{name}.finished" for name in NAMES]


@pytest.mark.parametrize("mended", [False, True], ids=["it stays impossible", "it is mended"])
def test_outputs_and_answer_agree_wherever_placing_and_undoing_are_killed(
    desks: Callable[[str], Desk], monkeypatch: pytest.MonkeyPatch, *, mended: bool
) -> None:
    """The second destination is a folder; after the kill somebody may have removed it."""
    kernel = Kernel(monkeypatch)
    for at in points():
        desk = desks(str(at))
        out = desk.here.out
        desk.take()
        (record,) = [r for r in desk.records if r.name == "a.job"]
        (out / "one").write_text("old")
        targets = tuple(Target(name, str(out / name)) for name in ("one", "two"))
        record = replace(record, targets=targets, attempt=1)
        for number in range(2):
            Path(placing.temporary(record, number, 1)).write_text("new")
        made = node.make(record, "completed", "processed OK")
        desk.answers.begin_placing([(record, made)])
        (out / "two").mkdir()

        def step(desk: Desk = desk) -> None:
            desk.answers.place([r for r in desk.records if r.phase == "PLACING"])
            stuck = desk.answers.unplace([r for r in desk.records if r.phase == "UNPLACING"])
            assert not stuck

        happened = kernel.kills(at, step)
        if mended:
            (out / "two").rmdir()
        desk.again()
        step()
        desk.answer()
        (answered,) = [r for r in desk.records if r.name == "a.job"]
        decided = desk.records.document(answered.id, "answer")
        placing.tidy_all(
            {answered.id: answered}, {answered.id} if decided["status"] == "ok" else ()
        )
        there = {p.name: p.read_text() for p in out.iterdir() if p.is_file()}
        if decided["status"] == "ok":
            assert there == {"one": "new", "two": "new"}
        else:
            assert there == {"one": "old"}
            assert decided["reason"] == "stage_out"
        if not happened:
            assert decided["status"] == "error"
            return


def test_on_a_full_disk_an_answer_comes_out_in_the_space_that_was_reserved(
    desks: Callable[[str], Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = desks("full")
    desk.take()
    seen = {"stdout": "x" * 100_000, "stderr": "y" * 100_000, "rc": 3}
    bad = [(r, node.make(r, "exit_code", "it failed", seen=seen)) for r in desk.records]
    desk.answers.decide(bad)
    real = effects.pwrite

    def full(descriptor: int, data: bytes, offset: int) -> int:
        is_answer = os.readlink(f"/proc/self/fd/{descriptor}").endswith(".answer")
        if is_answer and offset + len(data) > ANSWER_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data, offset)

    monkeypatch.setattr(effects, "pwrite", full)
    desk.answer()
    for found in desk.finished().values():
        assert (found["reason"], found["rc"]) == ("exit_code", 3)
        assert "there was no room on the disk" in found["stdout"]


def test_an_unread_answer_is_out_of_the_way_as_soon_as_the_next_job_is_taken(
    desks: Callable[[str], Desk],
) -> None:
    """Who waits for the answer must not read the one of the job before."""
    desk = desks("unread")
    unread = desk.here.dropbox / "a.job.finished"
    unread.write_text("job:\n    status: old\n")
    desk.take()
    assert not unread.exists()
    assert list(desk.finished()) == ["a.job.finished.1"]


def test_what_somebody_put_where_the_answer_goes_is_kept_as_well(
    decided: Desk,
) -> None:
    (decided.here.dropbox / "a.job.finished").write_text("job:\n    status: mine\n")
    decided.answer()
    found = {name: content["status"] for name, content in decided.finished().items()}
    assert found == {"a.job.finished": "ok", "a.job.finished.1": "mine", "b.job.finished": "ok"}


def test_a_cancel_that_came_too_late_goes_with_the_answer(decided: Desk) -> None:
    """It would stop the next job of that name."""
    (decided.here.dropbox / "a.job.cancel").touch()
    decided.answer()
    assert not (decided.here.dropbox / "a.job.cancel").exists()


def test_an_answer_that_came_out_though_an_error_was_reported_is_no_trouble(
    decided: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = effects.rename

    def rename(source: str, target: str) -> None:
        real(source, target)
        if os.fsdecode(target).endswith(".finished"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(effects, "rename", rename)
    decided.answer()
    assert {r.phase for r in decided.records} == {"CLEANING"}


def test_a_phase_is_written_only_when_what_it_means_is_there(
    desks: Callable[[str], Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel(monkeypatch)
    for at in points():
        desk = desks(str(at))
        desk.take()
        staging = [r.enter("STAGING") for r in desk.records]
        papers = {r.id: {"script": "true", "job": "script: x"} for r in staging}
        happened = kernel.kills(at, partial(desk.records.save_all, staging, papers))
        desk.again()
        for record in desk.records:
            if record.phase == "STAGING":
                assert desk.records.script(record.id) == b"true"
                assert desk.records.job_file(record.id) == b"script: x"
        if not happened:
            return
