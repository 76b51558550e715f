"""The input store, on a real folder."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from hpc_cluster import effects
from hpc_cluster.store import Missing, Store

KEY, OTHER = "a" * 32, "b" * 32
ME, YOU = "1" * 16, "2" * 16


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(os.fsencode(tmp_path), ME)


def enter(store: Store, key: str, data: bytes) -> None:
    Path(os.fsdecode(store.arriving(key))).write_bytes(data)
    store.seal(key, store.now())
    store.enter(key)


def test_what_was_sealed_is_there_in_that_size_only(store: Store) -> None:
    enter(store, KEY, b"12345")
    assert store.wanted([(KEY, 5), (OTHER, 5)]) == [OTHER]
    assert store.wanted([(KEY, 6)]) == [KEY]
    # A file of another size under this key is damaged, and has gone.
    assert store.wanted([(KEY, 5)]) == [KEY]


def test_a_file_that_was_written_to_is_not_linked(store: Store, tmp_path: Path) -> None:
    enter(store, KEY, b"12345")
    (tmp_path / KEY).chmod(0o600)
    (tmp_path / KEY).write_bytes(b"54321")
    with pytest.raises(Missing):
        store.link(KEY, 5, os.fsencode(tmp_path / "link"))
    assert not (tmp_path / KEY).exists()


def refuse(patch: pytest.MonkeyPatch, code: int) -> None:
    """Have every link fail."""

    def link(source: bytes, target: bytes) -> None:
        raise OSError(code, os.strerror(code))

    patch.setattr(effects, "link", link)


@pytest.mark.parametrize("code", ["EXDEV", "EPERM", "EMLINK", "ENOTSUP", "EACCES"])
def test_a_file_that_cannot_be_linked_is_copied(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    enter(store, KEY, b"12345")
    refuse(monkeypatch, getattr(errno, code))
    target = tmp_path / "copy"
    assert store.link(KEY, 5, os.fsencode(target)) is True
    assert target.read_bytes() == b"12345"
    assert target.stat().st_ino != (tmp_path / KEY).stat().st_ino


def test_a_file_that_was_evicted_while_it_is_linked_is_sent_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter(store, KEY, b"12345")
    refuse(monkeypatch, errno.ENOENT)
    with pytest.raises(Missing):
        store.link(KEY, 5, os.fsencode(tmp_path / "link"))


def test_a_full_disk_is_not_answered_by_a_copy(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter(store, KEY, b"12345")
    refuse(monkeypatch, errno.ENOSPC)
    with pytest.raises(OSError, match="No space"):
        store.link(KEY, 5, os.fsencode(tmp_path / "link"))


def test_a_released_beginning_is_taken_over_by_one_session(store: Store, tmp_path: Path) -> None:
    (tmp_path / f"{KEY}.{ME}").write_bytes(b"123")
    store.release(KEY)
    assert [p.name for p in tmp_path.iterdir()] == [f"{KEY}.part"]
    first = Store(store.folder, YOU).begin_all([KEY, OTHER])
    assert first[KEY] == (3, False) and first[OTHER] == (0, False)
    assert store.begin_all([KEY])[KEY].busy


def test_a_beginning_of_another_session_is_taken_when_it_stands_still(
    store: Store, tmp_path: Path
) -> None:
    (tmp_path / f"{KEY}.{YOU}").write_bytes(b"123")
    assert store.begin_all([KEY])[KEY] == (0, True)
    store.still_s = -1
    for _ in range(2):
        assert store.begin_all([KEY])[KEY] == (3, False)
    assert [p.name for p in tmp_path.iterdir()] == [f"{KEY}.{ME}"]


def test_a_sealed_file_of_another_session_is_not_taken_for_an_old_one(
    store: Store, tmp_path: Path
) -> None:
    other = Store(store.folder, YOU)
    (tmp_path / f"{KEY}.{YOU}").write_bytes(b"123")
    other.seal(KEY, other.now())
    assert store.begin_all([KEY])[KEY].busy


def test_the_least_recently_wanted_files_without_a_job_go_first(
    store: Store, tmp_path: Path
) -> None:
    names = [f"{n:032x}" for n in range(4)]
    for age, name in enumerate(names):
        enter(store, name, bytes(100))
        os.utime(tmp_path / name, (1000 - age, os.stat(tmp_path / name).st_mtime))
    os.link(tmp_path / names[3], tmp_path / "a job's link")
    assert store.evict(None, 3600) == []
    assert store.evict(250, 3600) == [names[2], names[1]]
    assert store.evict(0, 3600) == [names[0]]
    assert (tmp_path / names[3]).exists()


def test_what_was_wanted_just_now_is_not_evicted(store: Store) -> None:
    enter(store, KEY, bytes(100))
    assert store.evict(0, 3600) == []


def test_beginnings_that_nobody_continues_go(store: Store, tmp_path: Path) -> None:
    (tmp_path / f"{KEY}.part").write_bytes(b"123")
    (tmp_path / f"{OTHER}.{YOU}").write_bytes(b"123")
    assert store.evict(None, 3600) == []
    assert store.evict(None, -1) == [f"{KEY}.part", f"{OTHER}.{YOU}"]


def test_a_beginning_from_the_future_is_taken_over(store: Store, tmp_path: Path) -> None:
    """The clock of the file server was set back since; nobody writes it, whatever it says."""
    (tmp_path / f"{KEY}.{YOU}").write_bytes(b"123")
    assert store.begin_all([KEY])[KEY].busy
    store.now = lambda: int(time.time()) - 86400  # type: ignore[method-assign]
    assert store.begin_all([KEY])[KEY] == (3, False)
