"""The guard, and the heartbeat that it watches."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from hpc_cluster import clock, effects, pilot
from hpc_cluster.guard import Guard, kill
from hpc_cluster.heartbeat import STALE_BEATS, Heartbeat

P = secrets.token_hex(8)


def job() -> subprocess.Popen[bytes]:
    """Start a process group that does nothing."""
    return subprocess.Popen(["sleep", "600"], start_new_session=True)


def test_a_guard_whose_runner_is_gone_kills_the_groups_that_it_knows() -> None:
    guard, known, ended = Guard(600.0, P), job(), job()
    try:
        guard.tell(f"+{known.pid}")
        guard.tell(f"+{ended.pid}")
        guard.tell(f"-{ended.pid}")
        guard.close()
        assert known.wait(60) == -signal.SIGKILL
        assert ended.poll() is None
    finally:
        for one in (known, ended):
            kill(one.pid, signal.SIGKILL)
            one.wait()


def test_what_a_killed_runner_had_no_time_to_tell_of_is_killed_too() -> None:
    """Between the start of a job and the word to the guard the runner can be killed."""
    guards = [Guard(600.0, P), Guard(600.0, P)]
    jobs = [
        subprocess.Popen(
            ["sleep", "600"],
            start_new_session=True,
            env={**os.environ, "HPC_BATCH_PILOT": name},
        )
        for name in (P, "b" * 16)
    ]
    try:
        guards[0].close()
        assert jobs[0].poll() is None, "a runner that ends by itself has ended its jobs"
        assert guards[1]._process.stdin is not None
        guards[1]._process.stdin.close()
        assert jobs[0].wait(60) == -signal.SIGKILL
        guards[1]._process.wait()
        assert jobs[1].poll() is None, "another pilot's"
    finally:
        for one in jobs:
            kill(one.pid, signal.SIGKILL)
            one.wait()


def test_a_guard_kills_when_a_heartbeat_hangs() -> None:
    guard, known = Guard(0.2, P), job()
    try:
        guard.tell(f"+{known.pid}")
        guard.tell("try")
        assert known.wait(60) == -signal.SIGKILL
    finally:
        kill(known.pid, signal.SIGKILL)
        guard.close()


class Silent:
    """A guard that only listens."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def tell(self, word: str) -> None:
        self.words.append(word)


def test_a_heartbeat_that_comes_too_late_stays_too_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "heartbeat"
    path.write_bytes(pilot.beat(0, P))
    now, beats, third = [1000.0], [0], threading.Event()
    real = effects.pwrite

    def hang(descriptor: int, data: bytes, offset: int) -> int:
        beats[0] += 1
        if beats[0] == 1:
            now[0] += STALE_BEATS * 0.01 + 1
        elif beats[0] == 3:
            third.set()
        return real(descriptor, data, offset)

    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    monkeypatch.setattr(effects, "pwrite", hang)
    heart = Heartbeat(str(path).encode(), P, 0.01, Silent())  # type: ignore[arg-type]
    heart.start()
    try:
        assert third.wait(60)
        assert heart.stale()
    finally:
        heart.end()
        heart.join(60)
