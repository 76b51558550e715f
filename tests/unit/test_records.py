"""Journals and the records in them: what counts of a file that was cut, damaged or not synced."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from watched import Watched

from hpc_batch import journal
from hpc_batch.journal import Damaged
from hpc_batch.record import Phase, Record
from hpc_batch.records import LONG, Records
from hpc_cluster import effects, files

J = "0123abcd-0199aabbccd-0123456789abcdef"


def record(phase: Phase = "INTENT", job: str = J) -> Record:
    return Record(job, phase, "x.job", "/dropbox", "host", "/workspace", since="now")


@pytest.fixture
def records(tmp_path: Path) -> Records:
    """One job that was checked."""
    made = Records(tmp_path / "jobs").load()
    made.add_all([record()])
    made.save_all([record("STAGING")], {J: {"job": "script: say\n", "script": "echo\n"}})
    return made


def again(records: Records, is_taken: Callable[[str], bool] = lambda job: True) -> Records:
    """Return what the next pass reads."""
    return Records(Path(records.path(J)).parent).load(is_taken=is_taken)


def test_the_last_whole_line_counts_wherever_the_next_one_was_cut(records: Records) -> None:
    path = Path(records.path(J))
    before = path.read_bytes()
    records.save_all([record("PUBLISHING")], {J: {"script": "other\n"}})
    after = path.read_bytes()
    assert after.startswith(before)
    for end in range(len(before), len(after) - 1):
        for tail in (b"", b"\0" * (len(after) - end), b"\0" * (len(after) - end - 1) + b"\n"):
            path.write_bytes(after[:end] + tail)
            found = again(records)
            assert (found[J].phase, found.script(J)) == ("STAGING", b"echo\n")
    path.write_bytes(after)
    assert again(records)[J].phase == "PUBLISHING"


def test_what_follows_a_line_that_was_cut_counts(records: Records) -> None:
    path = Path(records.path(J))
    with path.open("ab") as file:
        file.write(b'0123abcd {"papers": {"job": "' + b"x" * 5000)
    found = again(records)
    found.save_all([record("PUBLISHING")])
    found.save_all([record("PUBLISHED")])
    assert again(records)[J].phase == "PUBLISHED"
    assert again(records).job_file(J) == b"script: say\n"


def test_of_a_paper_the_newest_counts_and_older_ones_stay(records: Records) -> None:
    records.save_all([record("ANSWERING")], {J: {"script": "newer\n"}})
    assert again(records).script(J) == b"newer\n"
    assert again(records).job_file(J) == b"script: say\n"


def test_an_older_paper_is_not_believed_where_a_damaged_line_may_have_held_a_newer_one(
    records: Records,
) -> None:
    path = Path(records.path(J))
    begin = len(path.read_bytes())
    records.save_all([record("PLACING")], {J: {"script": "newer\n"}})
    end = len(path.read_bytes())
    records.save_all([record("ANSWERING")])
    data = bytearray(path.read_bytes())
    data[begin + 20 : end - 20] = b"\xff" * (end - begin - 40)
    path.write_bytes(data)
    assert again(records)[J].phase == "ANSWERING"
    with pytest.raises(Damaged, match="its script"):
        again(records).script(J)


@pytest.mark.parametrize("text", [b"", b"0123abcd {}", b"\0" * 500, b"[]\n", b"00000000 \n"])
def test_an_intent_that_never_was_durable_is_nobodys_trouble(records: Records, text: bytes) -> None:
    path = Path(records.path(J))
    path.write_bytes(text)
    assert list(again(records).damaged) == [J]
    assert path.exists()
    assert not again(records, lambda job: False).damaged
    assert not path.exists()


def test_a_folder_in_a_journals_place_is_damage(records: Records) -> None:
    path = Path(records.path(J))
    path.unlink()
    path.mkdir()
    found = again(records)
    assert list(found.damaged) == [J]
    assert found.forget_damaged() == [J]
    assert not path.exists()
    (path / "record.json").mkdir(parents=True)
    assert not again(records, lambda job: False).damaged
    assert not path.exists()


def test_a_journal_that_was_cut_while_a_pass_works_is_not_written_to(records: Records) -> None:
    path = Path(records.path(J))
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(OSError):
        records.save_all([record("PUBLISHING")])
    assert path.read_bytes() == whole[:-10]
    assert records[J].phase == "INTENT"  # as far as the disk knows


def test_a_journal_does_not_grow_without_bounds(records: Records) -> None:
    path = Path(records.path(J))
    for _ in range(40):
        records.save_all([record("PUBLISHED")], {J: {"answer": {"stdout": "x" * 100_000}}})
    assert path.stat().st_size < LONG + 200_000
    assert again(records)[J].phase == "PUBLISHED"
    assert again(records).job_file(J) == b"script: say\n"
    path.with_name(J + journal.NEW).write_bytes(b"0123")  # killed before it took the other's place
    assert len(again(records)) == 1
    assert os.listdir(path.parent) == [J]


def test_a_journal_that_is_written_anew_is_durable_before_it_takes_the_old_ones_place(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpc_batch.records.LONG", 0)
    disk = Watched(monkeypatch)
    records.save_all([record("PUBLISHED")])
    assert (disk.early, disk.pending()) == ([], [])


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
    records: Records, monkeypatch: pytest.MonkeyPatch, phase: Phase
) -> None:
    records.save_all([record(phase)])
    synced: list[str] = []
    monkeypatch.setattr(
        effects, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}"))
    )
    again(records)
    assert synced == [records.path(J), os.path.dirname(records.path(J))]


@pytest.mark.parametrize("fails", ["journal", "folder"])
def test_an_intent_whose_name_may_be_lost_is_left_to_the_next_pass(
    records: Records, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    other = J.replace("0123abcd", "0123abce")
    real, failed = effects.fsync, []

    def failing(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if os.path.isdir(path) or (fails == "journal" and not failed):
            failed.append(path)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(effects, "fsync", failing)
        with pytest.raises(OSError):
            records.add_all([record(job=other)])
    assert other not in records
    assert again(records)[other].phase == "INTENT"


def test_a_journal_that_cannot_be_made_durable_is_left_to_the_next_pass(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(effects, "fsync", failing)
        with pytest.raises(OSError):
            records.save_all([record("PUBLISHING")])
    assert J not in records
    assert again(records)[J].phase == "PUBLISHING"


def test_names_and_texts_of_any_bytes_come_back(records: Records) -> None:
    text = bytes(range(256))
    records.save_all([record("STAGING")], {J: {"job": files.from_bytes(text)}})
    assert again(records).job_file(J) == text
