"""Placing all outputs or none, killed at any step."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from kernel import Kernel

from hpc_batch import placing
from hpc_batch.record import Record, Target
from hpc_cluster import effects

JOB = "0123abcd-00000000001-0123456789abcdef"


def collected(folder: Path, names: list[str], old: list[str]) -> Record:
    """A record whose outputs lie beside their destinations, some of which are taken."""
    for name in old:
        (folder / name).write_text(f"old {name}")
    targets = tuple(Target(name.split(".")[0], str(folder / name)) for name in names)
    record = Record(JOB, "PLACING", "x.job", "d", "h", "w", targets=targets, attempt=2)
    for number, name in enumerate(names):
        Path(placing.temporary(record, number, 2)).write_text(f"new {name}")
    return placing.observe([record])[0]


def place(record: Record) -> None:
    """Place outputs, durably, as for a batch of one."""
    placing.place(record)
    placing.settle([record])


def failing(code: int) -> Callable[..., None]:
    def effect(*args: object) -> None:
        raise OSError(code, os.strerror(code))

    return effect


def contents(folder: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in folder.iterdir() if not p.name.startswith(".")}


def test_outputs_are_placed_over_what_stood_there(tmp_path: Path) -> None:
    record = collected(tmp_path, ["a.txt", "b.txt"], ["b.txt"])
    placing.place(record)
    assert contents(tmp_path) == {"a.txt": "new a.txt", "b.txt": "new b.txt"}
    placing.tidy_all({JOB: record}, {JOB})
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "b.txt"]


def test_a_listing_that_lacks_what_stood_there_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = collected(tmp_path, ["a.txt"], ["a.txt"])
    placing.place(record)
    listings = [[], os.listdir(tmp_path)]
    monkeypatch.setattr(os, "listdir", lambda folder: listings.pop(0))
    placing.tidy_all({JOB: record}, {JOB})
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["a.txt"]


def test_what_stood_there_is_kept_though_one_look_does_not_find_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = collected(tmp_path, ["a.txt"], ["a.txt"])

    def link(source: str, target: str) -> None:
        monkeypatch.undo()
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)

    monkeypatch.setattr(effects, "link", link)
    with pytest.raises(FileNotFoundError):
        placing.place(record)
    placing.place(record)
    placing.unplace(record)
    assert contents(tmp_path) == {"a.txt": "old a.txt"}


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
    placing.tidy_all({JOB: record}, ())
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
    placing.tidy_all({JOB: record}, ())
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
    placing.tidy_all({JOB: record}, ())
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


# ---- killed at any effect ----------------------------------------------------------------------

NAMES, OLD = ["a.txt", "b.txt", "c.txt"], ["a.txt", "c.txt"]


@pytest.fixture(params=[True, False], ids=["with links", "without links"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch, links=request.param)


def killed_twice(
    folder: Path, kernel: Kernel, then: Callable[[Record], object]
) -> Iterator[tuple[Path, Record]]:
    """Kill placing at every effect, and then another step at every one of its own."""
    points = 0
    for first in itertools.count():
        for second in itertools.count():
            inner = folder / f"{first}-{second}"
            inner.mkdir()
            record = collected(inner, NAMES, OLD)
            once = kernel.kills(first, partial(place, record))
            twice = kernel.kills(second, partial(then, record))
            yield inner, record
            points += 1
            if not twice:
                break
        if not once:
            break
    assert points > 30


def test_placing_killed_at_any_two_effects_is_completed(tmp_path: Path, kernel: Kernel) -> None:
    for folder, record in killed_twice(tmp_path, kernel, place):
        placing.place(record)
        assert contents(folder) == {name: f"new {name}" for name in NAMES}
        placing.tidy_all({JOB: record}, {JOB})
        assert sorted(os.listdir(folder)) == NAMES


def test_placing_killed_at_any_effect_is_undone_with_another_kill_at_any(
    tmp_path: Path, kernel: Kernel
) -> None:
    for folder, record in killed_twice(tmp_path, kernel, placing.unplace):
        placing.unplace(record)
        placing.tidy_all({JOB: record}, ())
        assert contents(folder) == {name: f"old {name}" for name in OLD}
        assert sorted(os.listdir(folder)) == OLD


def test_nothing_of_ours_is_put_back_where_the_owner_removed_the_old_file(
    tmp_path: Path, kernel: Kernel
) -> None:
    for at in itertools.count():
        folder = tmp_path / str(at)
        folder.mkdir()
        record = collected(folder, NAMES, OLD)
        (folder / "a.txt").unlink()
        killed = kernel.kills(at, partial(place, record))
        kernel.kills(3, partial(place, record))
        placing.unplace(record)
        placing.tidy_all({JOB: record}, ())
        assert contents(folder) == {"c.txt": "old c.txt"}
        assert os.listdir(folder) == ["c.txt"]
        if not killed:
            break


def test_what_stood_there_first_is_what_comes_back(tmp_path: Path, kernel: Kernel) -> None:
    """A kill after it was set aside; then somebody writes there anew."""
    record = collected(tmp_path, ["a.txt"], ["a.txt"])
    assert kernel.kills(1, partial(placing.place, record))
    (tmp_path / "anew").write_text("anew")
    (tmp_path / "anew").rename(tmp_path / "a.txt")
    placing.place(record)
    assert contents(tmp_path) == {"a.txt": "new a.txt"}
    placing.unplace(record)
    placing.tidy_all({JOB: record}, ())
    assert contents(tmp_path) == {"a.txt": "old a.txt"}


def test_a_folder_that_stood_at_a_destination_stays_where_it_is(tmp_path: Path) -> None:
    record = collected(tmp_path, ["a.txt", "b.txt"], ["a.txt"])
    (tmp_path / "b.txt").mkdir()
    (tmp_path / "b.txt" / "precious").write_text("mine")
    record = placing.observe([record])[0]
    with pytest.raises(IsADirectoryError):
        placing.place(record)
    assert (tmp_path / "b.txt" / "precious").read_text() == "mine"
    assert (tmp_path / "a.txt").read_text() == "old a.txt"


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE])
def test_what_cannot_be_tidied_now_is_tidied_later(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = collected(tmp_path, ["a.txt"], ["a.txt"])
    placing.place(record)
    with monkeypatch.context() as patch:
        patch.setattr(effects, "unlink", failing(code))
        with pytest.raises(OSError, match=os.strerror(code)):
            placing.tidy_all({JOB: record}, {JOB})
    placing.tidy_all({JOB: record}, {JOB})
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_placed_output_that_cannot_be_looked_at_is_not_gone_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = collected(tmp_path, ["a.txt"], [])
    look = os.lstat

    def lstat(path: str) -> os.stat_result:
        if path == record.targets[0].path:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return look(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "lstat", lstat)
        with pytest.raises(OSError, match="Input/output"):
            placing.place(record)
        with pytest.raises(OSError, match="Input/output"):
            placing.unplace(record)
    placing.unplace(record)
    assert os.listdir(tmp_path) == []


def test_jobs_with_one_folder_are_tidied_together_and_others_left_alone(tmp_path: Path) -> None:
    first = collected(tmp_path, ["a.txt"], ["a.txt"])
    other = f".hpcb-{JOB[:-1]}0-0.a2"
    (tmp_path / other).write_text("another job's, on its way")
    placing.place(first)
    placing.settle([first, first])
    placing.tidy_all({JOB: first}, {JOB})
    assert sorted(os.listdir(tmp_path)) == [other, "a.txt"]
