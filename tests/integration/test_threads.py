"""A machine that has no room for one more thread: the pass ends soon, and the next one goes on."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from integration import sshd
from integration.test_pass_over_ssh import env, remote
from world import world

SOON_S = 25

WITHOUT_MEMORY = """
import time
from hpc_batch import threads

def work(lock):
    with lock:
        raise MemoryError

class Lock:
    def __enter__(self): pass
    def __exit__(self, *args): raise MemoryError

threads.start(work, "work", Lock())
time.sleep(60)
"""
"""A thread that cannot let go of what others wait for."""

LITTLE_MEMORY = """
import os, resource, sys
from hpc_cluster import threads

with open("/proc/self/statm") as file:
    size = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
limit = size + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    threads.start(len, "work", "").join()
except OSError:
    os._exit(1)
os._exit(0)
"""
"""A thread in a process that may grow by so many bytes."""

FULL = bool(os.environ.get("HPC_BATCH_FULL"))
"""Every thread fails to start, each in its turn; otherwise every third."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshd.Sshd]:
    with sshd.running(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.mark.parametrize(
    "transport",
    [
        "local",
        *(
            pytest.param(name, marks=pytest.mark.skipif(bool(sshd.MISSING), reason=sshd.MISSING))
            for name in ("fabric", "openssh")
        ),
    ],
)
def test_a_thread_that_cannot_be_started_ends_the_pass_and_not_the_job(
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    transport: str,
) -> None:
    where = {"transport": "local"}
    if transport != "local":
        where = remote(request.getfixturevalue("server"), transport)
    real, begun = threading.Thread.start, [0, 0]

    def start(thread: threading.Thread) -> Any:
        begun[0] += 1
        if begun[0] == begun[1]:
            raise RuntimeError("can't start new thread")
        return real(thread)

    with world(tmp_path, remote=where, hpc_env=env()) as here:
        for number in range(1, 40, 1 if FULL else 3):
            name = f"job{number}"
            here.drop_copy(name)
            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", start)
                for _ in ("staged", "collected"):
                    begun[:] = [0, number]
                    before = time.monotonic()
                    assert here.sweep() in (0, 75)
                    assert time.monotonic() - before < SOON_S, number
            assert here.until(name)[name]["status"] == "ok"
            if begun[0] < number:
                break
        else:
            raise AssertionError("threads without end")
    assert "bug" not in capsys.readouterr().err


def test_a_thread_that_ends_without_memory_ends_the_pass() -> None:
    """What it held is free then, and the next pass goes on."""
    checkout = Path(__file__).resolve().parents[2]
    paths = os.pathsep.join(str(checkout / name) for name in ("tools", "on_hpc"))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_MEMORY],
        env={**os.environ, "PYTHONPATH": paths},
        timeout=SOON_S,
    )
    assert done.returncode == 75


def test_a_thread_for_which_there_is_hardly_any_memory_is_not_waited_for() -> None:
    """Python's own `start` waits without end for a thread that ends before its first line."""
    checkout = Path(__file__).resolve().parents[2]
    stack = resource.getrlimit(resource.RLIMIT_STACK)[0]
    before = (8 << 20) if stack == resource.RLIM_INFINITY else stack
    for more in range(0, 1 << 16, 1 << 12):
        subprocess.run(
            [sys.executable, "-c", LITTLE_MEMORY, str(before + more)],
            env={**os.environ, "PYTHONPATH": str(checkout / "on_hpc")},
            stderr=subprocess.DEVNULL,
            timeout=SOON_S,
        )
