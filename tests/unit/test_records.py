"""Journals and the records in them: what counts of a file that was cut, damaged or not synced."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from watched import Watched

from hpc_batch import journal
from hpc_batch.journal import SLACK, TAIL_BYTES, Damaged, Step
from hpc_batch.record import Phase, Record, stamp
from hpc_batch.records import Records
from hpc_cluster import effects, files

J = "0123abcd-0199aabbccd-0123456789abcdef"
OTHER = "0123abcd-0199aabbccd-0123456789abcdee"


def record(phase: Phase = "INTENT", job: str = J) -> Record:
    return Record(job, phase, "x.job", "/dropbox", "host", "/workspace", since="now")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An empty journal."""
    files.append(str(tmp_path / "journal"), b"")
    return tmp_path / "journal"


@pytest.fixture
def records(path: Path) -> Records:
    """One job that was checked."""
    made = Records(path).load()
    made.save_all([record()])
    made.save_all([record("STAGING")], {J: {"job": "script: say\n", "script": "echo\n"}})
    return made


def again(path: Path) -> Records:
    """Return what the next pass reads."""
    return Records(path).load()


def phases(path: Path) -> dict[str, Phase]:
    return {one.id: one.phase for one in again(path)}


def test_the_last_whole_line_counts_wherever_the_next_one_was_cut(
    path: Path, records: Records
) -> None:
    before = path.read_bytes()
    records.save_all([record("PUBLISHING")], {J: {"script": "other\n"}})
    after = path.read_bytes()
    assert after.startswith(before)
    for end in range(len(before), len(after) - 1):
        for tail in (b"", b"\0" * (len(after) - end), b"\0" * (len(after) - end - 1) + b"\n"):
            path.write_bytes(after[:end] + tail)
            found = again(path)
            assert (found[J].phase, found.script(J)) == ("STAGING", b"echo\n")
    path.write_bytes(after)
    assert again(path)[J].phase == "PUBLISHING"


def test_each_line_of_a_batch_counts_by_itself(path: Path, records: Records) -> None:
    """What was not synced is on a disk in any order, and in parts."""
    records.save_all([record(job=OTHER)])
    before = path.read_bytes()
    records.save_all([record("PUBLISHED"), record("ACCEPTED", OTHER)])
    first, second = path.read_bytes()[len(before) :].splitlines(keepends=True)
    for end in range(len(first) - 1):
        path.write_bytes(before + first[:end] + b"\0" * (len(first) - end - 1) + b"\n" + second)
        assert phases(path) == {J: "STAGING", OTHER: "ACCEPTED"}
        assert again(path).script(J) == b"echo\n"
    path.write_bytes(before + first + second[:-9])
    assert phases(path) == {J: "PUBLISHED", OTHER: "INTENT"}


@pytest.mark.parametrize("tail", [b"x" * 5000, b"x\ny\n" * 900, b"0123abcd " + J.encode() + b" {"])
def test_what_follows_a_line_that_was_cut_counts(path: Path, records: Records, tail: bytes) -> None:
    with path.open("ab") as file:
        file.write(tail)
    found = again(path)
    found.save_all([record("PUBLISHING")])
    found.save_all([record("PUBLISHED")])
    assert again(path)[J].phase == "PUBLISHED"
    assert again(path).job_file(J) == b"script: say\n"


def test_a_line_that_never_counted_does_not_count_later(path: Path, records: Records) -> None:
    """Behind what a power cut left in part, the next step ends just where a whole one begins."""
    size = path.stat().st_size
    records.save_all([record("PUBLISHING")])
    length = path.stat().st_size - size
    whole = path.read_bytes()[:size]
    other = journal.line(OTHER, Step(record().document(), {}))
    path.write_bytes(whole + bytes(length) + other[:-1])
    found = again(path)
    assert OTHER not in found
    found.save_all([record("PUBLISHING")])
    assert path.stat().st_size == size + length
    assert phases(path) == {J: "PUBLISHING"}


def test_of_a_paper_the_newest_counts_and_older_ones_stay(path: Path, records: Records) -> None:
    records.save_all([record("ANSWERING")], {J: {"script": "newer\n"}})
    for found in (records, again(path)):
        assert found.script(J) == b"newer\n"
        assert found.job_file(J) == b"script: say\n"


def test_papers_of_many_jobs_are_those_that_are_whole(path: Path, records: Records) -> None:
    begin = path.stat().st_size
    records.save_all([record("STAGING", OTHER)], {OTHER: {"echo": "script: x\n"}})
    records.save_all([record("ANSWERING")], {J: {"answer": {"no": "answer"}, "echo": 7}})
    asked = (OTHER, "no job", J)
    found = list(records.papers_of(asked, "job", "echo", "answer"))
    assert found == [{"echo": "script: x\n"}, {}, {"job": "script: say\n"}]
    data = bytearray(path.read_bytes())
    data[begin + 60] ^= 1
    path.write_bytes(data)
    assert list(records.papers_of(asked, "job", "echo")) == [{}, {}, {"job": "script: say\n"}]


def test_an_older_paper_is_not_believed_where_a_damaged_line_may_have_held_a_newer_one(
    path: Path, records: Records
) -> None:
    begin = path.stat().st_size
    records.save_all([record("PLACING")], {J: {"script": "newer\n"}})
    end = path.stat().st_size
    records.save_all([record("ANSWERING")])
    data = bytearray(path.read_bytes())
    data[begin + 60 : end - 20] = b"\xff" * (end - begin - 80)
    path.write_bytes(data)
    assert again(path)[J].phase == "ANSWERING"
    with pytest.raises(Damaged, match=f"the script of {J}"):
        again(path).script(J)


def test_a_job_that_is_forgotten_stays_so(path: Path, records: Records) -> None:
    records.save_all([record(job=OTHER)])
    records.remove_all([records[J]])
    assert [one.id for one in records] == [OTHER]
    assert phases(path) == {OTHER: "INTENT"}
    records.save_all([record()])
    assert phases(path) == {OTHER: "INTENT", J: "INTENT"}
    with pytest.raises(Damaged):
        again(path).script(J)


def newest(path: Path) -> list[tuple[str, Phase]]:
    return [(one.id, one.phase) for one in Records(path).newest()]


def test_the_end_of_a_journal_tells_the_newest_records_that_count(
    path: Path, records: Records
) -> None:
    records.save_all([record("ACCEPTED", OTHER)])
    assert newest(path) == [(OTHER, "ACCEPTED"), (J, "STAGING")]
    path.write_bytes(path.read_bytes() + b"0123abcd half a line")
    assert newest(path) == [(OTHER, "ACCEPTED"), (J, "STAGING")]
    again(path).remove_all([record(job=OTHER)])
    assert newest(path) == [(J, "STAGING")]


def test_of_a_long_journal_the_end_alone_is_asked(path: Path, records: Records) -> None:
    records.save_all([record("PUBLISHING")], {J: {"script": "x" * TAIL_BYTES}})
    assert newest(path) == []
    records.save_all([record("PUBLISHED", OTHER)])
    assert newest(path) == [(OTHER, "PUBLISHED")]


def test_damage_hurts_one_job_only(path: Path, records: Records) -> None:
    records.save_all([record(job=OTHER)])
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    assert phases(path) == {J: "STAGING", OTHER: "INTENT"}
    assert b"\n%08x " % journal.checksum(bytes(data[9 : data.index(b"\n") + 1])) not in data
    assert path.read_bytes().count(b"\n") == 2, "what is damaged is not kept"


def test_what_is_no_record_is_damage_of_one_job(path: Path, records: Records) -> None:
    with path.open("ab") as file:
        file.write(journal.line(OTHER, Step({"protocol": 99}, {})))
    found = again(path)
    assert list(found.damaged) == [OTHER]
    assert J in found
    assert found.forget_damaged() == [OTHER]
    assert phases(path) == {J: "STAGING"}
    assert not again(path).damaged


@pytest.mark.parametrize("kind", ["folder", "link", "missing", "fifo"])
def test_without_a_journal_nothing_is_known(path: Path, records: Records, kind: str) -> None:
    path.rename(path.with_name("other"))
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("other")
    elif kind == "fifo":
        os.mkfifo(path)
    with pytest.raises(Damaged):
        again(path)
    with pytest.raises(OSError):
        records.save_all([record("PUBLISHED")])


def test_a_journal_that_was_cut_while_a_pass_works_is_not_written_to(
    path: Path, records: Records
) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(OSError):
        records.save_all([record("PUBLISHING")])
    assert path.read_bytes() == whole[:-10]


def test_a_journal_that_seems_shorter_than_it_is_is_not_believed(
    path: Path, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would be written next would take the place of what was not seen."""
    whole, real = path.read_bytes(), os.pread
    for seen in (0, 100, len(whole) - 1):
        with monkeypatch.context() as patch:
            patch.setattr(os, "pread", lambda fd, n, at, end=seen: real(fd, max(0, end - at), at))
            with pytest.raises(OSError, match="cut"):
                again(path)
    assert path.read_bytes() == whole
    assert phases(path) == {J: "STAGING"}


@pytest.mark.parametrize("is_big", [False, True])
def test_a_journal_does_not_grow_without_bounds(path: Path, records: Records, is_big: bool) -> None:
    records.save_all([record(job=OTHER)], {OTHER: {"job": "x" * 3 * SLACK * is_big}})
    for _ in range(80):
        records.save_all([record("PUBLISHED")], {J: {"answer": {"stdout": "x" * 100_000}}})
    assert path.stat().st_size < SLACK + 400_000 + 6 * SLACK * is_big
    assert again(path)[J].phase == "PUBLISHED"
    assert again(path).job_file(J) == b"script: say\n"
    assert len(again(path).job_file(OTHER)) == 3 * SLACK * is_big
    records.remove_all([*records])
    again(path)
    assert path.stat().st_size < SLACK


def test_a_journal_that_is_written_anew_is_durable_before_it_takes_the_old_ones_place(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpc_batch.journal.SLACK", -(1 << 20))
    disk = Watched(monkeypatch)
    records.save_all([record("PUBLISHED")])
    records.save_all([record("PLACING")])
    assert (disk.early, disk.pending()) == ([], [])


def test_the_name_of_a_journal_that_a_killed_pass_wrote_anew_is_durable_before_a_step_counts(
    path: Path, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut would bring back the old one, which lacks the step."""
    disk = Watched(monkeypatch)
    real = effects.fsync

    def killed(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}") == str(path.parent):
            raise SystemExit
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("hpc_batch.journal.SLACK", -(1 << 20))
        patch.setattr(effects, "fsync", killed)
        with pytest.raises(SystemExit):
            again(path)
    assert disk.pending()
    again(path).save_all([record("PUBLISHED")])
    assert disk.pending() == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("effect", ["open", "write", "fsync", "rename"])
def test_a_journal_that_cannot_be_written_anew_stays(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    records: Records,
    code: int,
    late: bool,
    effect: str,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("hpc_batch.journal.SLACK", -(1 << 20))
        found = again(path)
    real, failed = getattr(effects, effect), []

    def fails(first: Any, *more: Any) -> Any:
        name = f"/proc/self/fd/{first}" if isinstance(first, int) else first
        name = os.path.realpath(os.fsdecode(name))
        if failed or not name.endswith(".new"):
            return real(first, *more)
        failed.append(name)
        if late:
            real(first, *more)
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(effects, effect, fails)
        patch.setattr("hpc_batch.journal.SLACK", -(1 << 20))
        if code == errno.ENOSPC:
            found.save_all([record("PUBLISHED")])
        else:
            with pytest.raises(OSError):
                found.save_all([record("PUBLISHED")])
    assert failed
    assert found[J].phase == ("PUBLISHED" if code == errno.ENOSPC else "STAGING")
    assert phases(path) == {J: found[J].phase}
    found.save_all([record("PLACING")])
    assert phases(path) == {J: "PLACING"}
    assert again(path).script(J) == b"echo\n"


def test_what_a_disk_has_failed_to_write_is_written_again_before_it_counts(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed fsync the next one says well, and the disk has nothing (fsync(2))."""
    dirty: list[int] = []
    lost: list[int] = []
    failed: list[int] = []
    real = effects.pwrite

    def pwrite(descriptor: int, data: Any, offset: int) -> int:
        dirty.append(offset)
        return real(descriptor, data, offset)

    def fsync(descriptor: int) -> None:
        if not failed:
            failed.append(descriptor)
            lost.extend(dirty)
            dirty.clear()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        for offset in dirty:
            lost[:] = [kept for kept in lost if kept < offset]
        dirty.clear()

    monkeypatch.setattr(effects, "pwrite", pwrite)
    monkeypatch.setattr(effects, "fsync", fsync)
    with pytest.raises(OSError):
        records.save_all([record("PUBLISHING")])
    assert records[J].phase == "PUBLISHING"
    assert lost == []


@pytest.mark.parametrize("phase", ["INTENT", "PUBLISHING", "PLACING", "UNPLACING", "ANSWERING"])
def test_what_a_killed_pass_wrote_is_durable_before_it_is_acted_on(
    path: Path, records: Records, monkeypatch: pytest.MonkeyPatch, phase: Phase
) -> None:
    records.save_all([record(phase)])
    written, synced = [], []
    real = effects.pwrite
    monkeypatch.setattr(
        effects, "pwrite", lambda *args: written.append(bytes(args[1])) or real(*args)
    )
    monkeypatch.setattr(
        effects, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}"))
    )
    again(path)
    assert written == [path.read_bytes().splitlines(keepends=True)[-1]]
    assert synced == [str(path.parent), str(path)]


def test_a_journal_that_cannot_be_made_durable_is_left_to_the_next_pass(
    path: Path, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(effects, "fsync", failing)
        with pytest.raises(OSError):
            records.save_all([record("PUBLISHING")])
    assert J not in records
    assert again(path)[J].phase == "PUBLISHING"


def test_names_and_texts_of_any_bytes_come_back(path: Path, records: Records) -> None:
    text = bytes(range(256))
    records.save_all([record("STAGING")], {J: {"job": files.from_bytes(text)}})
    assert again(path).job_file(J) == text


def test_a_changed_record_is_like_one_made_so() -> None:
    begun = record()
    changed = begun.but(phase="STAGING", script="say")
    assert changed == replace(begun, phase="STAGING", script="say") != begun
    assert begun == record()
    with pytest.raises(TypeError, match="scribt"):
        begun.but(scribt="say")


def test_a_time_has_whole_seconds_of_the_past() -> None:
    assert [stamp(s) for s in (0, 0.999, 1, 1e9 + 0.5)] == [
        *["1970-01-01T00:00:00Z"] * 2,
        "1970-01-01T00:00:01Z",
        "2001-09-09T01:46:40Z",
    ]
