"""When a drop is settled, and which is never taken, as one look shows it."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest
from world import World

from hpc_batch import settling
from hpc_batch.listing import look, unanswerable


@pytest.mark.parametrize(
    ("text", "left_s"),
    [("script: say\n...\n", 0), ("script: say\n", 7), ("script: say", 57), ("- no job", 597)],
)
def test_where_nothing_tells_of_writers_a_drop_is_waited_for_the_longer_the_less_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, left_s: int
) -> None:
    here = World(tmp_path)
    path = here.drop_text("a", text)

    def unknown(*call: Any) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(fcntl, "fcntl", unknown)
    clock = path.stat().st_ctime + 3
    shown = settling.look(str(path))
    assert settling.wait_of(shown, clock, here.config)[0] == pytest.approx(left_s)


def test_a_writer_that_ended_while_a_drop_was_looked_at_has_written_all_that_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel says that nobody writes it any more, which tells nothing of an earlier read."""
    path = tmp_path / "a.job"
    path.write_text("script: say\n")
    ask = fcntl.fcntl

    def ended(*call: Any) -> Any:
        path.write_text("script: say\nargs:\n  words: x\n")
        monkeypatch.setattr(fcntl, "fcntl", ask)
        return ask(*call)

    monkeypatch.setattr(fcntl, "fcntl", ended)
    shown = settling.look(str(path))
    assert (shown.lease, shown.text) == ("quiet", path.read_bytes())


def test_of_a_drop_with_an_end_mark_nobody_asks_who_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.job"
    path.write_text("script: say\n...\n")
    monkeypatch.delattr(fcntl, "fcntl")
    assert settling.look(str(path)).content == "end"


def test_what_is_no_regular_file_is_never_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    for name in ("fifo", "link"):
        shown = settling.look(str(tmp_path / name))
        assert not shown.is_file and shown.error is not None
        assert settling.wait_of(shown, 1e12, World(tmp_path).config)[0] == float("inf")


def test_a_drop_with_a_second_link_is_left_alone_until_it_has_one(tmp_path: Path) -> None:
    """Its writer may still have it under its other name."""
    (tmp_path / "a.job").write_text("script: say\n...\n")
    os.link(tmp_path / "a.job", tmp_path / ".other")
    (drop,) = look(tmp_path).drops
    assert "more than one hard link" in str(unanswerable(drop))
    (tmp_path / ".other").unlink()
    (drop,) = look(tmp_path).drops
    assert unanswerable(drop) is None
