"""The kernel's own view: strace kills or fails the programs at their n-th call of one kind.

It follows the pass into the session and the pilots that it starts, and strikes in each of them.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest
from preload.kinds import Strace, tracer
from preload.library import judging
from preload.rounds import Round, calm

FULL = bool(os.environ.get("HPC_BATCH_FULL"))
ROUNDS = 100 if FULL else 2


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Round]:
    with judging(tmp_path_factory.mktemp("strace"), Round) as made:
        yield made


@pytest.mark.timeout(3600)
def test_a_fault_at_any_call_of_the_kernel_changes_nothing_in_the_end(here: Round) -> None:
    kind = Strace()
    seed = int(os.environ.get("HPC_BATCH_SEED", random.randrange(1 << 30) if FULL else 1))
    expected = calm(here)
    for number in range(ROUNDS):
        told, problems = kind.make(here, random.Random(f"{seed}.{number}"), expected)
        assert not problems, (f"seed {seed}.{number}", told, problems)


def test_the_library_and_strace_agree_on_what_a_kill_is(here: Round) -> None:
    """So that a strace which does not strike is noticed."""
    strace = tracer()
    here.begin()
    here.before = [*strace, "-e", "trace=rename", "-e", "inject=rename:signal=SIGKILL:when=1"]
    assert here.one_pass() not in (0, 75)
    here.before = []
    here.settle()
    assert not here.problems
