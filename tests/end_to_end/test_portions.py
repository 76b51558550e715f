"""Passes that are all killed after the same number of effects come to an end all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from world import World, world

PROGRAM = Path(__file__).resolve().parents[1] / "data" / "killed_pass.py"
JOBS = 120
EFFECTS = 400
"""Each pass is killed after so many, and all jobs together take many times more."""

PASSES = 100


def killed_pass(here: World) -> None:
    command = [sys.executable, str(PROGRAM), str(here.ini)]
    environment = {**os.environ, "KILL_AT": str(EFFECTS), "KILL_WHEN": "after"}
    subprocess.run(command, env=environment, capture_output=True, check=False)


def until(here: World, is_done: Callable[[], bool]) -> int:
    """Make passes that are killed; return how many it took."""
    for number in range(PASSES):
        if is_done():
            return number
        killed_pass(here)
    raise AssertionError(f"nothing moves: {here.picture()[-3000:]}")


def is_clean(here: World) -> bool:
    return not here.records() and not list(here.dropbox.glob("*.job"))


@pytest.mark.timeout(240)
def test_drops_that_are_rejected(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        here.sweep()
        for number in range(JOBS):
            here.drop(f"j{number}", "unknown")
        until(here, lambda: is_clean(here))
        assert len(list(here.dropbox.glob("*.finished"))) == JOBS
        assert not [n for n in os.listdir(here.dropbox / ".hpc_batch") if "-" in n]


@pytest.mark.timeout(240)
def test_jobs_that_have_ended(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        for number in range(JOBS // 3):
            here.drop_quick(f"j{number}")
        here.sweep()
        here.wait_for_tickets(JOBS // 3)
        until(here, lambda: is_clean(here))
        answers = [here.answer(f"j{number}") for number in range(JOBS // 3)]
        assert {a["status"] for a in answers} == {"ok"}
        assert not os.listdir(here.workspace / "jobs")
