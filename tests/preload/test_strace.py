"""The kernel's own view: strace kills or fails the programs at their n-th call of one kind.

It follows the pass into the session and the pilots that it starts, and strikes in each of them.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from preload.library import Judge, built
from preload.rounds import PASS_S, Round, calm, difference

FULL = bool(os.environ.get("HPC_BATCH_FULL"))
ROUNDS = 100 if FULL else 2

CALLS = {
    "rename": 30,
    "fsync": 60,
    "openat": 900,
    "mkdir": 20,
    "unlink": 30,
    "linkat": 6,
    "pwrite64": 20,
    "write": 60,
    "ftruncate": 8,
    "close": 900,
}
"""Of each call, about how many a process makes in a round."""

PILOT_S = 600.0
"""strace ends with the last pilot that it follows, and one in which each thread's n-th call fails
tries for minutes."""

FAULTS = ("signal=SIGKILL", "signal=SIGKILL", "error=EIO", "error=ENOSPC", "error=ESTALE")


def tracer() -> list[str]:
    """Return strace, where it may trace here; skip elsewhere."""
    program = shutil.which("strace")
    if program is None:
        pytest.skip("needs strace: apt-get install strace")
    command = [program, "-f", "-qq", "-o", os.devnull]
    tried = subprocess.run([*command, "-e", "inject=sync:error=EIO", "true"], check=False)
    if tried.returncode != 0:
        pytest.skip("strace may not trace, or cannot inject, on this machine")
    return command


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Round]:
    folder = tmp_path_factory.mktemp("strace")
    made = Round(folder / "w", Judge(built(folder), folder / "judge", folder / "w"))
    yield made
    made.end()


@pytest.mark.timeout(3600)
def test_a_fault_at_any_call_of_the_kernel_changes_nothing_in_the_end(here: Round) -> None:
    strace = tracer()
    seed = int(os.environ.get("HPC_BATCH_SEED", random.randrange(1 << 30) if FULL else 1))
    expected = calm(here)
    for number in range(ROUNDS):
        chance = random.Random(f"{seed}.{number}")
        call = chance.choice(sorted(CALLS))
        at, fault = chance.randint(1, CALLS[call]), chance.choice(FAULTS)
        print(f"seed {seed}.{number}: {call} {at} {fault}")
        here.begin()
        here.before = [*strace, "-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={at}"]
        here.pass_s = PILOT_S
        here.one_pass()
        here.before, here.pass_s = [], PASS_S
        # A call that failed outside of our files may have been one of Python's own.
        here.problems = [p for p in here.problems if "a traceback" not in p]
        here.settle()
        found = here.outcome()
        assert not here.problems, (call, at, fault, here.problems)
        assert found == expected, (call, at, fault, difference(expected, found))


def test_the_library_and_strace_agree_on_what_a_kill_is(here: Round) -> None:
    """So that a strace which does not strike is noticed."""
    strace = tracer()
    here.begin()
    here.before = [*strace, "-e", "trace=rename", "-e", "inject=rename:signal=SIGKILL:when=1"]
    assert here.one_pass() not in (0, 75)
    here.before = []
    here.settle()
    assert not here.problems
