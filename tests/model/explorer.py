"""Visiting every state of a model: breadth first, with the way back kept.

A model offers `initial`, `steps(state)` (pairs of a name and the state after it), `wrong(state)`
(names of violated invariants) and `is_settled(state)`. What is found: states in which an invariant
is violated, and states from which no path leads to a settled one. The state of a violation is not
explored further.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple


class Found(NamedTuple):
    """What a search found."""

    states: int
    steps: int
    settled: int
    wrong: dict[str, list[str]]
    """Each violated invariant with a shortest trace to it."""
    stuck: list[str] | None
    """A shortest trace to a state from which nothing settles; None: there is none."""


def explore(model: Any, *, first: bool = False) -> Found:
    """Visit every reachable state; with `first`, stop at the first violation."""
    numbers = {model.initial: 0}
    states, came = [model.initial], [(-1, "")]
    before: list[list[int]] = [[]]
    wrong: dict[str, list[str]] = {}
    bad: set[int] = set()
    queue, steps = deque([0]), 0
    while queue and not (first and wrong):
        here = queue.popleft()
        for name, after in model.steps(states[here]):
            steps += 1
            there = numbers.get(after)
            if there is None:
                there = numbers[after] = len(states)
                states.append(after)
                came.append((here, name))
                before.append([])
                problems = model.wrong(after)
                for problem in problems:
                    wrong.setdefault(problem, _trace(came, there))
                if problems:
                    bad.add(there)
                else:
                    queue.append(there)
            before[there].append(here)
    settled = [n for n, state in enumerate(states) if n not in bad and model.is_settled(state)]
    stuck = None
    if not (first and wrong):
        fine = _backward(before, settled) | bad
        lost = next((n for n in range(len(states)) if n not in fine), None)
        stuck = None if lost is None else _trace(came, lost)
    return Found(len(states), steps, len(settled), wrong, stuck)


def _backward(before: list[list[int]], goals: list[int]) -> set[int]:
    """Return every state from which a goal can be reached."""
    reached, stack = set(goals), list(goals)
    while stack:
        for number in before[stack.pop()]:
            if number not in reached:
                reached.add(number)
                stack.append(number)
    return reached


def _trace(came: list[tuple[int, str]], number: int) -> list[str]:
    names = []
    while number > 0:
        number, name = came[number]
        names.append(name)
    return names[::-1]
