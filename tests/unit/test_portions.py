"""Portions: a step takes all at once, until passes are killed before it comes to its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from world import World

from hpc_batch.portions import FEW, MOST, NAME, PART, Portions
from hpc_batch.state import State, hold


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with hold(World(tmp_path).config) as held:
        held.begin()
        yield held


def portions(state: State, *, cut: bool = False) -> Portions:
    """What the next pass has."""
    return Portions(state, lambda: cut)


def sizes(made: Portions, count: int, step: str = "clean") -> list[int]:
    return [len(part) for part in made.of(step, range(count))]


def killed(state: State, count: int, after: int = 0) -> int:
    """Begin a step in a pass that is killed in it; return how many it had begun with."""
    parts = portions(state).of("clean", range(count))
    for _ in range(after):
        next(parts)
    return len(next(parts))


def test_where_nothing_disturbs_a_step_takes_all_at_once(state: State) -> None:
    assert sizes(portions(state), MOST) == [MOST]
    assert sizes(portions(state), 0) == []
    assert not state.path(NAME).exists()


def test_a_portion_is_never_larger_than_what_is_durable_soon(state: State) -> None:
    assert sizes(portions(state), 2 * MOST + 1) == [MOST, MOST, 1]


def test_after_each_kill_a_step_takes_less_and_never_nothing(state: State) -> None:
    begun = [killed(state, 400) for _ in range(6)]
    assert begun == [400, 100, 25, FEW, FEW, FEW]


def test_what_came_to_its_end_lets_the_next_portion_grow(state: State) -> None:
    for _ in range(4):
        killed(state, 400)
    assert sizes(portions(state), 400) == [8, 32, 128, 232]
    assert sizes(portions(state), 400) == [400]
    assert not state.path(NAME).exists()


def test_a_kill_in_a_later_portion_does_not_forget_what_was_small_enough(state: State) -> None:
    for _ in range(3):
        killed(state, 400)
    assert killed(state, 400, after=1) == FEW * PART
    assert killed(state, 400) == FEW


def test_steps_have_portions_of_their_own(state: State) -> None:
    killed(state, 400)
    assert sizes(portions(state), 400, "answer") == [400]
    assert sizes(portions(state), 400)[0] == 100


def test_a_step_that_lost_the_cluster_takes_less_the_next_time(state: State) -> None:
    assert sizes(portions(state, cut=True), 400) == [400]
    assert sizes(portions(state), 400)[0] == 100


def test_few_jobs_cost_nothing(state: State) -> None:
    parts = portions(state).of("clean", range(FEW))
    assert len(next(parts)) == FEW
    assert not state.path(NAME).exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"clean": "x"}', '{"clean": 0}', "null"])
def test_a_note_that_says_nothing_is_none(state: State, text: str) -> None:
    state.path(NAME).write_text(text)
    assert sizes(portions(state), 400) == [400]
