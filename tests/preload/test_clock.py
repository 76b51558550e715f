"""Wrong clocks under the programs as they are: nothing is lost, given up, or waited for in vain."""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
from preload.library import EVERY_ROLE, Act, Call, Role, judging
from preload.rounds import DAY_S, LASTING, LEAPS_S, Round, calm, difference

FULL = bool(os.environ.get("HPC_BATCH_FULL"))

HOST = Role.SUBMITTER | Role.CLIENT
CLUSTER = EVERY_ROLE & ~HOST


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Round]:
    with judging(tmp_path_factory.mktemp("clock"), Round) as made:
        yield made


@pytest.fixture(scope="module")
def expected(here: Round) -> dict[str, Any]:
    return calm(here)


def right_in_the_end(here: Round, expected: dict[str, Any]) -> None:
    here.judge.disarm()
    here.settle()
    found = here.outcome()
    assert not here.problems, here.problems
    assert found == expected, difference(expected, found)


def some(leaps_s: tuple[int, ...]) -> list[int]:
    """Return the leaps that are tried: all in the full size, else one into each direction."""
    if FULL:
        return list(leaps_s)
    back = random.choice([leap for leap in leaps_s if leap < 0])
    return [back, random.choice([leap for leap in leaps_s if leap > 0])]


@pytest.mark.timeout(1200)
def test_a_leap_of_a_clock_between_two_passes_changes_nothing(here: Round, expected: Any) -> None:
    """A stage fails at first, so that the patience of the service host is under way, too."""
    for leap_s in some(LEAPS_S):
        print("leap", leap_s)
        for roles in (HOST, CLUSTER) if FULL else (EVERY_ROLE,):
            here.begin()
            here.judge.arm(
                Role.SUBMITTER, Call.OPEN_READ, Act.FAIL, 1, errno.EIO, LASTING, where="in/*"
            )
            here.one_pass()
            here.judge.clock(roles, leap_s)
            here.one_pass()
            here.one_pass()
            right_in_the_end(here, expected)
            here.judge.clock(roles, 0)


@pytest.mark.timeout(1200)
def test_a_leap_of_the_file_servers_clock_changes_nothing(here: Round, expected: Any) -> None:
    for leap_s in some(LEAPS_S):
        print("leap", leap_s)
        here.begin()
        here.one_pass()
        here.judge.server(leap_s, int(time.time()))
        here.one_pass()
        right_in_the_end(here, expected)
        here.judge.server(0, 0)


def test_a_drop_from_the_future_is_taken_when_it_has_been_seen_for_a_while(here: Round) -> None:
    """The file server's clock was wrong when it was written, or its writer's."""
    here.begin()
    here.settle()
    path = here.dropbox / "plain.job"
    path.write_text("script: say\nargs:\n  words: late\n")  # without the mark `...`
    end = time.monotonic() + 120
    here.judge.server(-DAY_S, int(time.time()) + 1)
    time.sleep(1.1)  # what is changed from now on, as the probe, was changed a day ago
    while "plain.job" in os.listdir(here.dropbox):
        assert time.monotonic() < end, here.picture()
        here.one_pass()
        time.sleep(0.5)
    here.judge.server(0, 0)
