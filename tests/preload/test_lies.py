"""A batch system that lies, and a file server with stale listings: nothing is lost or doubled."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from preload.library import Act, Call, Judge, Role, built, judging
from preload.lying import Lying
from preload.rounds import calm, difference
from soak.clocks import hasten

FULL = bool(os.environ.get("HPC_BATCH_FULL"))
ROUNDS = 60 if FULL else 1


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lying]:
    with judging(tmp_path_factory.mktemp("lies"), Lying) as made:
        yield made


@pytest.mark.timeout(3600)
def test_a_batch_system_that_lies_delays_and_changes_nothing(here: Lying) -> None:
    seed = int(os.environ.get("HPC_BATCH_SEED", random.randrange(1 << 30)))
    print(f"seed {seed}")
    expected: dict[str, Any] = calm(here)
    for number in range(ROUNDS):
        chance = random.Random(f"{seed}.{number}")
        here.begin()
        told = []
        for _ in range(chance.choice([2, 4, 8] if FULL else [2, 4])):
            told.append(here.lie(chance))
            if chance.random() < 0.5:
                here.judge.arm(Role.SESSION, Call.LIST, Act.HIDE, chance.randint(1, 200), 0, 20)
            here.one_pass()
            here.judge.disarm()
        here.be_honest()
        here.settle()
        found = here.outcome()
        found["slots"] = expected["slots"]  # their number is the policy's to say
        assert not here.problems, (f"seed {seed}.{number}", told, here.problems)
        assert found == expected, (f"seed {seed}.{number}", told, difference(expected, found))


TIMEOUT_S = 2.0
"""A command of the batch system is killed after it, here."""


def impatient(folder: Path) -> Path:
    """Return the scripts of a far end that kills a command sooner."""
    scripts = hasten(folder, lease_s=60.0)
    path = folder / "hpc_cluster" / "batch" / "__init__.py"
    text = path.read_text()
    assert "\nTIMEOUT_S = 60.0\n" in text
    path.write_text(text.replace("\nTIMEOUT_S = 60.0\n", f"\nTIMEOUT_S = {TIMEOUT_S}\n"))
    return scripts


def let_time_pass(here: Lying, seconds: float) -> None:
    """Have the next pass see so much more time gone by since the last one."""
    path = here.state / "machine"
    kept = json.loads(path.read_text())
    kept["elapsed"]["monotonic"] -= seconds
    path.write_text(json.dumps(kept))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("hangs", [["LIST"], ["SUBMIT", "LIST", "CANCEL"]], ids=str)
def test_of_a_batch_system_that_hangs_is_told_and_passes_end_in_their_time(
    tmp_path: Path, hangs: list[str]
) -> None:
    judge = Judge(built(tmp_path), tmp_path / "judge", tmp_path / "w")
    scripts = {"scripts": impatient(tmp_path / "on_hpc")}
    here = Lying(tmp_path / "w", judge, hpc_env=scripts)
    try:
        expected = calm(here)
        here.begin()
        here.more = {**here.more, **{f"FAKE_{verb}": "hang" for verb in hangs}}
        said = []
        for _ in range(4):
            began = time.monotonic()
            assert here.one_pass() in (0, 75)
            assert time.monotonic() - began < 30
            said.append(here.said)
            let_time_pass(here, 1200)
        assert "the batch system does not say what becomes of the pilots" in "".join(said)
        here.be_honest()
        here.settle()
        found = here.outcome()
        found["slots"] = expected["slots"]
        assert not here.problems, here.problems
        assert found == expected, difference(expected, found)
    finally:
        here.end()
