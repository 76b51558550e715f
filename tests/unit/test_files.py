"""What a file system that errs makes of the functions that everything rests on."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from hpc_cluster import durable, effects, files


def failing(code: int, *, done: bool = False) -> Any:
    """Return an effect that fails; `done`: after it happened."""

    def effect(*args: Any) -> None:
        if done:
            (os.rename if len(args) == 2 else os.unlink)(*args)
        raise OSError(code, os.strerror(code))

    return effect


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    (tmp_path / "source").write_text("x")
    return str(tmp_path / "source"), str(tmp_path / "target")


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ENOENT])
def test_a_move_that_was_done_is_done_whatever_is_reported(
    pair: tuple[str, str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(effects, "rename", failing(code, done=True))
    assert files.move(*pair)


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ENOENT])
def test_a_move_that_failed_is_not_taken_for_somebody_elses(
    pair: tuple[str, str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(effects, "rename", failing(code))
    with pytest.raises(OSError, match=os.strerror(code)):
        files.move(*pair)


def test_a_move_of_what_is_gone_is_somebody_elses(tmp_path: Path) -> None:
    assert not files.move(tmp_path / "none", tmp_path / "target")  # type: ignore[arg-type]


def test_what_could_not_be_removed_is_not_taken_for_gone(
    pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(effects, "unlink", failing(errno.ESTALE))
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        files.unlink(pair[0])
    monkeypatch.setattr(effects, "unlink", failing(errno.ESTALE, done=True))
    assert not files.unlink(pair[0])


@pytest.mark.parametrize("name", ["link", "symlink"])
def test_a_link_that_was_made_and_asked_for_again_is_made(
    pair: tuple[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    act = getattr(effects, name)

    def twice(*args: Any) -> None:
        act(*args)
        act(*args)

    monkeypatch.setattr(effects, name, twice)
    getattr(files, name)(*pair)
    assert Path(pair[1]).exists()


@pytest.mark.parametrize("name", ["link", "symlink"])
def test_a_link_takes_no_name_that_is_taken(pair: tuple[str, str], name: str) -> None:
    Path(pair[1]).write_text("another")
    with pytest.raises(FileExistsError):
        getattr(files, name)(*pair)


def test_a_file_system_that_does_not_say_says_not_no(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not files.exists("/none/none")
    monkeypatch.setattr(os, "lstat", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        files.exists("/none/none")


def test_what_is_appended_is_whole_though_a_write_takes_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = effects.write
    monkeypatch.setattr(effects, "write", lambda file, data: whole(file, bytes(data)[:3]))
    files.append(str(tmp_path / "log"), b"one line\n")
    assert (tmp_path / "log").read_bytes() == b"one line\n"


def test_without_room_for_threads_files_are_made_durable_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [files.join(str(tmp_path), str(n)) for n in range(durable.FEW + 1)]
    for path in paths:
        files.write_new(path, b"x")
    synced: list[str] = []
    monkeypatch.setattr(durable, "_can_syncfs", lambda device: False)
    monkeypatch.setattr(
        effects, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}"))
    )

    def full(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", full)
    durable.sync_files(paths)
    assert sorted(synced) == [os.fsdecode(path) for path in paths]


# ---- two looks -------------------------------------------------------------------------------


def once(monkeypatch: pytest.MonkeyPatch, place: Any, name: str, code: int) -> None:
    """Have the next call of a function fail; those that follow work."""
    real, left = getattr(place, name), [code]

    def call(*args: Any, **more: Any) -> Any:
        if left:
            raise OSError(left[0], os.strerror(left.pop()))
        return real(*args, **more)

    monkeypatch.setattr(place, name, call)


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ENOTDIR])
def test_one_look_that_finds_nothing_proves_nothing(
    pair: tuple[str, str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    once(monkeypatch, os, "lstat", code)
    assert files.exists(pair[0])
    assert not files.exists(pair[1])
    assert not files.exists(f"{pair[0]}/inside")
    assert not files.exists(f"{pair[1]}/inside")


def test_one_look_at_many_that_finds_nothing_proves_nothing(
    pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, asked = os.lstat, []

    def forgetful(path: Any, **options: Any) -> os.stat_result:
        asked.append(path)
        if asked.count(path) == 1:
            raise FileNotFoundError(errno.ENOENT, "forgotten", path)
        return honest(path, **options)

    monkeypatch.setattr(os, "lstat", forgetful)
    assert files.missing(pair) == {pair[1]}
    assert files.missing([f"{pair[0]}/inside"]) == {f"{pair[0]}/inside"}


def test_of_what_a_disk_does_not_say_nothing_is_missing(
    pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Any) -> os.stat_result:
        raise OSError(errno.EIO, "broken", path)

    monkeypatch.setattr(os, "lstat", broken)
    assert files.missing(pair) == set()
    with pytest.raises(OSError, match="broken"):
        files.unlink_all(pair)


def test_many_names_are_removed_though_some_are_gone_and_one_seemed_so(
    pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, refused = os.unlink, []

    def forgetful(path: Any) -> None:
        refused.append(path)
        if refused.count(path) == 1:
            raise FileNotFoundError(errno.ENOENT, "forgotten", path)
        honest(path)

    monkeypatch.setattr(effects, "unlink", forgetful)
    files.unlink_all([*pair, f"{pair[0]}/inside"])
    assert os.listdir(os.path.dirname(pair[0])) == []


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EACCES, errno.ELOOP])
def test_one_look_at_a_mode_that_leads_nowhere_proves_nothing(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    once(monkeypatch, os, "stat", code)
    assert files.is_folder(str(tmp_path))


def test_names_may_be_given_without_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert not files.exists("missing") and not files.exists(b"missing")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EXDEV, errno.EBUSY, errno.ENOENT])
def test_what_is_refused_once_is_tried_again(
    pair: tuple[str, str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    once(monkeypatch, effects, "rename", code)
    files.twice(files.rename, *pair)
    assert files.exists(pair[1])
    with pytest.raises(FileNotFoundError):
        files.twice(files.rename, *pair)


def test_what_may_pass_is_left_to_the_next_pass(
    pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    once(monkeypatch, effects, "rename", errno.EIO)
    with pytest.raises(OSError):
        files.twice(files.rename, *pair)
    assert files.exists(pair[0])


def test_what_is_appended_behind_a_line_that_was_cut_is_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "history"
    for data in (b"one\ntw", b"three\n", b"four\n"):
        files.append(str(path), data)
    assert path.read_bytes() == b"one\ntw\nthree\nfour\n"
