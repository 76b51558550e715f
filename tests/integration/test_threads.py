"""A machine that has no room for one more thread: the pass ends soon, and the next one goes on."""

from __future__ import annotations

import os
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
