"""The trash: what answered jobs leave goes away with the next pass, and never more than that."""

from __future__ import annotations

from pathlib import Path

import pytest
from world import world

from hpc_batch.trash import Trash


@pytest.fixture
def trash(tmp_path: Path) -> Trash:
    (tmp_path / "x").write_text("x")
    return Trash(str(tmp_path / "trash"))


def lying(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "trash").iterdir())


def test_what_is_put_there_is_removed_once_it_was_seen(tmp_path: Path, trash: Trash) -> None:
    trash.look()
    assert trash.put(str(tmp_path / "x"), "J.drop")
    trash.empty()
    assert lying(tmp_path) == ["J.drop"]
    trash.look()
    assert (len(trash), trash.size()) == (1, 1)
    trash.empty(lambda: True)
    assert lying(tmp_path) == ["J.drop"]
    trash.empty()
    assert lying(tmp_path) == []


@pytest.mark.parametrize("kind", ["folder", "missing"])
def test_what_is_no_file_is_not_put_there(tmp_path: Path, trash: Trash, kind: str) -> None:
    path = tmp_path / "y"
    if kind == "folder":
        path.mkdir()
    assert not trash.put(str(path), "J.submitted")
    assert path.exists() == (kind == "folder")


def test_where_there_can_be_no_trash_the_caller_is_told(tmp_path: Path, trash: Trash) -> None:
    (tmp_path / "trash").write_text("in the way")
    assert not trash.put(str(tmp_path / "x"), "J.drop")
    assert (tmp_path / "x").exists()


def test_what_cannot_be_removed_does_not_keep_the_rest(tmp_path: Path, trash: Trash) -> None:
    for name in ("a", "b", "c"):
        trash.put(str(tmp_path / "x"), name)
        (tmp_path / "x").write_text("x")
    (tmp_path / "trash" / "b").unlink()
    (tmp_path / "trash" / "b").mkdir()
    trash.look()
    trash.empty()
    assert lying(tmp_path) == ["b"]


def test_a_pass_removes_what_the_one_before_it_has_left(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        here.drop("x", "say", args={"words": "x"})
        here.until("x")
        kept = here.dropbox / ".hpc_batch" / "trash"
        assert sorted(path.suffix for path in kept.iterdir()) == [".drop", ".submitted"]
        assert here.sweep() == 0
        assert not list(kept.iterdir())
