"""A pass that lingers: real programs, one minute joining the next."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from integration import proxy, sshd
from integration.conversation import far_ends
from world import World, world

CHECKOUT = Path(__file__).resolve().parents[2]
PROGRAM = CHECKOUT / "tools" / "hpc_submitter"

MINUTES = {"linger": 600}
"""Longer than any test: a pass that lingers so long ends when it is ended."""

LIVING = {"linger": 60}
"""A pilot that is still there for the next job."""


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, cronjob=MINUTES, pilot=LIVING) as made:
        yield made


class Passes:
    """Passes as cron starts them; whatever still runs is ended."""

    def __init__(self, here: World) -> None:
        self._here = here
        self._all: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        words = [sys.executable, str(PROGRAM), str(self._here.ini)]
        self._all.append(subprocess.Popen(words, start_new_session=True))
        return self._all[-1]

    def end(self) -> None:
        for one in self._all:
            one.kill()
            one.wait()


@pytest.fixture
def passes(here: World) -> Iterator[Passes]:
    made = Passes(here)
    yield made
    made.end()


def until(here: World, true: Callable[[], Any]) -> None:
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end, here.picture()
        time.sleep(0.02)


def answered(here: World, name: str) -> None:
    until(here, here.finished(name).exists)
    assert here.answer(name)["status"] == "ok"


def in_state(here: World, name: str, state: str) -> Callable[[], bool]:
    """Return whether status.json shows a job in a state."""

    def told() -> bool:
        try:
            jobs = here.status()["jobs"]
        except FileNotFoundError:
            return False
        return {"name": f"{name}.job", "state": state}.items() <= _job(jobs, name).items()

    return told


def _job(jobs: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next((j for j in jobs if j["name"] == f"{name}.job"), {})


def hold_job(here: World, name: str) -> Path:
    """Drop a job that runs until the file exists whose path is returned."""
    flag = here.root / f"{name}.go"
    code = f"until [ -e {flag} ]; do sleep 0.1; done"
    here.drop(name, "shell", args={"code": code})
    until(here, in_state(here, name, "staged"))
    return flag


def test_one_pass_answers_one_drop_after_the_other(here: World, passes: Passes) -> None:
    running = passes.start()
    for number in range(4):
        here.drop_copy(f"job{number}")
        answered(here, f"job{number}")
    assert running.poll() is None
    published = (here.state / "log").read_text().count(" published")
    assert published == 4


def test_a_drop_interrupts_the_wait_for_a_job_that_runs(here: World, passes: Passes) -> None:
    here.configure(cronjob=MINUTES, pilot={**LIVING, "slots": 2})
    running = passes.start()
    go = hold_job(here, "long")
    here.drop_copy("short")
    answered(here, "short")
    assert not here.finished("long").exists()
    go.touch()
    answered(here, "long")
    assert running.poll() is None


def test_a_drop_whose_writer_takes_its_time_is_taken_when_it_settles(
    here: World, passes: Passes
) -> None:
    running = passes.start()
    here.drop_copy("first")
    answered(here, "first")
    text = (here.dropbox / "first.job.finished").read_text()
    with open(here.dropbox / "naive.job", "w") as file:
        file.write(text.partition("\njob:")[0])
        file.flush()
        time.sleep(0.5)
        file.write("\n")
    answered(here, "naive")
    assert running.poll() is None


def test_a_drop_of_a_name_in_flight_is_taken_after_the_answer(here: World, passes: Passes) -> None:
    running = passes.start()
    go = hold_job(here, "same")
    here.drop_copy("same")
    go.touch()
    until(here, (here.dropbox / "same.job.finished.1").exists)
    answered(here, "same")
    assert running.poll() is None


def test_it_ends_in_time(here: World) -> None:
    here.configure(cronjob={"linger": 2})
    begin = time.monotonic()
    assert here.sweep() == 0
    assert time.monotonic() - begin < 30
    assert here.status()["pass"]["ended"]


def test_the_next_pass_takes_over_from_one_that_is_killed(here: World, passes: Passes) -> None:
    first = passes.start()
    go = hold_job(here, "long")
    second = passes.start()
    time.sleep(1)
    assert second.poll() is None, "it waits for the lock"
    first.send_signal(signal.SIGKILL)
    first.wait()
    go.touch()
    answered(here, "long")
    here.drop_copy("next")
    answered(here, "next")
    assert second.poll() is None


def test_the_next_pass_takes_over_from_one_that_ends(here: World, passes: Passes) -> None:
    here.configure(cronjob={"linger": 3}, pilot=LIVING)
    first = passes.start()
    until(here, (here.state / "status.json").exists)
    here.configure(cronjob=MINUTES, pilot=LIVING)
    second = passes.start()
    assert first.wait(60) == 0
    here.drop_copy("next")
    answered(here, "next")
    assert second.poll() is None


def test_a_kill_while_waiting_leaves_no_far_end_behind(here: World, passes: Passes) -> None:
    running = passes.start()
    go = hold_job(here, "long")
    assert far_ends(str(here.workspace), "serve")
    running.send_signal(signal.SIGKILL)
    running.wait()
    until(here, lambda: not far_ends(str(here.workspace), "serve"))
    here.configure(cronjob={"linger": 0})
    go.touch()
    assert here.until("long")["long"]["status"] == "ok"


def test_a_far_end_that_dies_while_waited_for_ends_the_pass(here: World, passes: Passes) -> None:
    running = passes.start()
    go = hold_job(here, "long")
    for pid in far_ends(str(here.workspace), "serve"):
        os.kill(pid, signal.SIGKILL)
    assert running.wait(60) == 75
    here.configure(cronjob={"linger": 0})
    go.touch()
    assert here.until("long")["long"]["status"] == "ok"


@pytest.mark.skipif(bool(sshd.MISSING), reason=sshd.MISSING)
@pytest.mark.parametrize("transport", ["fabric", "openssh"])
def test_a_line_that_breaks_while_waiting_ends_the_pass(tmp_path: Path, transport: str) -> None:
    with sshd.running(tmp_path / "sshd") as server, proxy.Proxy(server.port) as line:
        known_hosts = tmp_path / "known_hosts"
        text = server.known_hosts.read_text()
        known_hosts.write_text(text.replace(f":{server.port} ", f":{line.port} "))
        remote = {
            "transport": transport,
            "host": "127.0.0.1",
            "port": line.port,
            "user": server.user,
            "key_file": server.key,
            "known_hosts": known_hosts,
            "python": sys.executable,
        }
        env = {"scripts": CHECKOUT / "on_hpc" / "scripts"}
        keys = {"remote": remote, "hpc_env": env, "cronjob": MINUTES, "pilot": LIVING}
        with world(tmp_path / "w", **keys) as here:
            passes = Passes(here)
            try:
                running = passes.start()
                here.drop_copy("one")
                answered(here, "one")
                here.drop_copy("two")
                answered(here, "two")
                assert server.logins == 1
                go = hold_job(here, "long")
                line.cut()
                assert running.wait(60) == 75
            finally:
                passes.end()
            here.configure(**{**keys, "cronjob": {"linger": 0}})
            go.touch()
            assert here.until("long")["long"]["status"] == "ok"
