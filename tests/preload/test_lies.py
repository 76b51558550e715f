"""A batch system that lies, and a file server with stale listings: nothing is lost or doubled."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Any

import pytest
from preload.library import Act, Call, Judge, Role, built
from preload.lying import Lying
from preload.rounds import calm, difference

FULL = bool(os.environ.get("HPC_BATCH_FULL"))
ROUNDS = 60 if FULL else 1


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lying]:
    folder = tmp_path_factory.mktemp("lies")
    made = Lying(folder / "w", Judge(built(folder), folder / "judge", folder / "w"))
    yield made
    made.end()


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
