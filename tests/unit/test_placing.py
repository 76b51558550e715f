"""Placing all outputs or none, killed at any step."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from hpc_batch import placing
from hpc_batch.record import Record, Target

JOB = "0123abcd-00000000001-0123456789abcdef"


def collected(folder: Path, names: list[str], old: list[str]) -> Record:
    """A record whose outputs lie beside their destinations, some of which are taken."""
    for name in old:
        (folder / name).write_text(f"old {name}")
    targets = tuple(Target(name.split(".")[0], str(folder / name)) for name in names)
    record = Record(JOB, "PLACING", "x.job", "d", "h", "w", targets=targets, attempt=2)
    for number, name in enumerate(names):
        Path(placing.temporary(record, number, 2)).write_text(f"new {name}")
    return replace(record, targets=placing.observe(record))


def contents(folder: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in folder.iterdir() if not p.name.startswith(".")}


def test_outputs_are_placed_over_what_stood_there(tmp_path: Path) -> None:
    record = collected(tmp_path, ["a.txt", "b.txt"], ["b.txt"])
    placing.place(record)
    assert contents(tmp_path) == {"a.txt": "new a.txt", "b.txt": "new b.txt"}
    placing.tidy(record, placed=True)
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "b.txt"]


def test_placing_may_be_repeated(tmp_path: Path) -> None:
    record = collected(tmp_path, ["a.txt", "b.txt"], ["a.txt"])
    placing.place(record)
    placing.place(record)
    assert contents(tmp_path) == {"a.txt": "new a.txt", "b.txt": "new b.txt"}


def test_placing_continues_after_a_kill_between_two_renames(tmp_path: Path) -> None:
    record = collected(tmp_path, ["a.txt", "b.txt"], ["a.txt", "b.txt"])
    os.link(tmp_path / "a.txt", tmp_path / f".hpcb-{JOB}-0.old")
    os.rename(placing.temporary(record, 0, 2), tmp_path / "a.txt")
    placing.place(record)
    assert contents(tmp_path) == {"a.txt": "new a.txt", "b.txt": "new b.txt"}


def test_a_folder_at_a_destination_stops_placing_before_anything_is_renamed(tmp_path: Path) -> None:
    record = collected(tmp_path, ["a.txt", "b.txt"], ["a.txt"])
    (tmp_path / "b.txt").mkdir()
    with pytest.raises(IsADirectoryError):
        placing.place(record)
    placing.unplace(record)
    placing.tidy(record, placed=False)
    assert (tmp_path / "a.txt").read_text() == "old a.txt"
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "b.txt"]


@pytest.mark.parametrize("placed", [0, 1, 2, 3])
def test_unplacing_puts_everything_back_wherever_placing_stopped(
    tmp_path: Path, placed: int
) -> None:
    record = collected(tmp_path, ["a.txt", "b.txt", "c.txt"], ["a.txt", "c.txt"])
    for number in range(placed):
        target = record.targets[number]
        if target.existed:
            os.link(target.path, tmp_path / f".hpcb-{JOB}-{number}.old")
        os.rename(placing.temporary(record, number, 2), target.path)
    placing.unplace(record)
    placing.unplace(record)
    placing.tidy(record, placed=False)
    assert contents(tmp_path) == {"a.txt": "old a.txt", "c.txt": "old c.txt"}
    assert len(os.listdir(tmp_path)) == 2


def test_unplacing_removes_ours_where_the_owner_had_removed_the_old_one(tmp_path: Path) -> None:
    record = collected(tmp_path, ["a.txt", "b.txt"], ["a.txt"])
    (tmp_path / "a.txt").unlink()
    (tmp_path / "held").write_text("keeps the inode apart")
    os.unlink(placing.temporary(record, 1, 2))
    with pytest.raises(FileNotFoundError):
        placing.place(record)
    assert contents(tmp_path)["a.txt"] == "new a.txt"
    placing.unplace(record)
    assert set(contents(tmp_path)) == {"held"}


def test_what_cannot_be_put_back_now_is_kept_and_put_back_later(tmp_path: Path) -> None:
    record = collected(tmp_path, ["a.txt", "b.txt"], ["a.txt"])
    placing.place(record)
    (tmp_path / "a.txt").unlink()
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(IsADirectoryError):
        placing.unplace(record)
    assert not (tmp_path / "b.txt").exists()
    placing.tidy(record, placed=False)
    (tmp_path / "a.txt").rmdir()
    placing.unplace(record)
    assert contents(tmp_path) == {"a.txt": "old a.txt"}


def test_unplacing_leaves_a_file_that_is_not_ours(tmp_path: Path) -> None:
    record = collected(tmp_path, ["a.txt"], [])
    placing.place(record)
    (tmp_path / "a.txt").unlink()
    (tmp_path / "other").write_text("keeps the inode apart")
    (tmp_path / "a.txt").write_text("somebody else's")
    if os.lstat(tmp_path / "a.txt").st_ino == record.targets[0].inode:
        pytest.skip("this file system gave the same inode again")
    placing.unplace(record)
    assert (tmp_path / "a.txt").read_text() == "somebody else's"


def test_an_output_that_vanished_before_placing_is_an_error(tmp_path: Path) -> None:
    record = collected(tmp_path, ["a.txt"], [])
    os.unlink(placing.temporary(record, 0, 2))
    with pytest.raises(FileNotFoundError):
        placing.place(record)
