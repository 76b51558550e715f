"""The input store, on a real folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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


def test_a_file_that_cannot_be_linked_any_more_is_copied(store: Store, tmp_path: Path) -> None:
    enter(store, KEY, b"12345")
    target = Path("/dev/shm") / f"hpc_batch-test-{os.getpid()}"
    if not target.parent.is_dir() or target.parent.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs two file systems")
    try:
        assert store.link(KEY, 5, os.fsencode(target)) is True
        assert target.read_bytes() == b"12345"
    finally:
        target.unlink()


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
