"""How long a pass lingers, what wakes it, and how the next one joins it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from world import World

from hpc_batch import doorbell, state
from hpc_batch.doorbell import Doorbell, Listing, Watch
from hpc_batch.lingering import serving_s

MINUTE = 1_800_000_000
"""A Unix time with second 0."""

LONG_S = 60
"""No test waits for so long; whoever does has not been woken."""


@pytest.mark.parametrize(
    ("linger", "second", "seconds"),
    [
        (0, 0, 0),
        (60, 0, 55),
        (60, 1, 54),
        (60, 9.5, 45.5),
        (60, 54.5, 0.5),
        (60, 55, 60),
        (60, 58, 57),
        (120, 1, 114),
        (300, 0, 295),
        (30, 0, 30),
        (30, 40, 15),
        (30, 57, 30),
    ],
)
def test_a_pass_serves_until_second_55(linger: float, second: float, seconds: float) -> None:
    assert MINUTE % 60 == 0
    assert serving_s(linger, MINUTE + second) == seconds


def by_inotify(folder: Path) -> Watch:
    return doorbell.Notified(folder)


def by_mtime(folder: Path) -> Watch:
    return Listing(folder, 0.05, local=True)


def by_names(folder: Path) -> Watch:
    return Listing(folder, 0.05)


@pytest.fixture(params=[by_inotify, by_mtime, by_names])
def bell(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Doorbell:
    if request.param is by_inotify:
        pytest.importorskip("inotify_simple")
    made = Doorbell(tmp_path)
    made._watch = request.param(tmp_path)
    request.addfinalizer(made.close)
    return made


def drop(folder: Path, name: str) -> None:
    (folder / ".aside").write_text("script: x\n...\n")
    (folder / ".aside").rename(folder / name)


def soon(act: Callable[[], object]) -> None:
    threading.Timer(0.2, act).start()


@pytest.mark.parametrize("name", ["a.job", "a.job.cancel", "b\udcff.job"])
def test_a_drop_wakes(bell: Doorbell, tmp_path: Path, name: str) -> None:
    soon(lambda: drop(tmp_path, name))
    assert bell.wait(LONG_S)


def test_a_drop_before_the_wait_wakes(bell: Doorbell, tmp_path: Path) -> None:
    drop(tmp_path, "a.job")
    assert bell.wait(LONG_S)
    assert not bell.wait(0.3)
    drop(tmp_path, "b.job")
    assert bell.wait(LONG_S)


def test_what_a_pass_itself_does_wakes_nobody(bell: Doorbell, tmp_path: Path) -> None:
    (tmp_path / ".hpc_batch").mkdir()
    for name in ("a.job.submitted", "a.job.finished", ".b.job"):
        drop(tmp_path, name)
    assert not bell.wait(0.5)
    drop(tmp_path, "c.job")
    (tmp_path / "c.job").rename(tmp_path / ".hpc_batch" / "J.drop")
    assert not bell.wait(0.5)


def test_a_ring_wakes_and_is_kept(bell: Doorbell) -> None:
    soon(bell.ring)
    assert bell.wait(LONG_S)
    for _ in range(100_000):
        bell.ring()
    assert bell.wait(LONG_S)
    assert not bell.wait(0)


def test_the_first_wait_begins_to_listen_and_returns(tmp_path: Path) -> None:
    bell = Doorbell(tmp_path)
    drop(tmp_path, "a.job")
    assert bell.wait(LONG_S)
    bell.close()
    bell.ring()


def test_a_writer_that_closes_its_drop_wakes(tmp_path: Path) -> None:
    pytest.importorskip("inotify_simple")
    bell = Doorbell(tmp_path)
    with open(tmp_path / "a.job", "w") as file:
        bell.listen()
        file.write("script: x\n")
        file.flush()
        assert not bell.wait(0.2)
        soon(file.close)
        assert bell.wait(LONG_S)
    bell.close()


def test_without_the_library_the_folder_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "inotify_simple", None)
    bell = Doorbell(tmp_path)
    bell.listen()
    assert isinstance(bell._watch, Listing)
    soon(lambda: drop(tmp_path, "a.job"))
    assert bell.wait(LONG_S)
    bell.close()


def test_a_dropbox_on_a_network_file_system_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorbell, "network_file_system", lambda path: "nfs4")
    bell = Doorbell(tmp_path)
    bell.listen()
    assert isinstance(bell._watch, Listing)
    assert bell._watch.period_s == doorbell.NETWORK_S
    bell.close()


def test_a_starting_pass_waits_for_the_lock(tmp_path: Path) -> None:
    config = World(tmp_path).config
    held, release = threading.Event(), threading.Event()

    def first() -> None:
        with state.hold(config):
            held.set()
            release.wait(LONG_S)

    thread = threading.Thread(target=first)
    thread.start()
    held.wait(LONG_S)
    begin = time.monotonic()
    with pytest.raises(state.Busy), state.hold(config, 0.5):
        pass
    assert time.monotonic() - begin >= 0.5
    with pytest.raises(state.Busy), state.hold(config):
        pass
    soon(release.set)
    with state.hold(config, LONG_S) as taken:
        assert taken.lock_descriptors
    thread.join()
    assert os.path.exists(tmp_path / "state")
