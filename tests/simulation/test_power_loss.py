"""The power of a machine is cut at any effect: what was acknowledged is still true afterwards.

A play is made once to count its effects, and then again and again, each time cut short at another
one: at a service host, or at the cluster with its file server, or at the file server alone while
pilots live on. What had not been made durable is lost, or part of it is (`power.SHAPES`). Then the
world goes on, and every drop must get the one answer that it gets undisturbed.

Between two fsyncs of a disk nothing becomes durable, so the points that matter are before each
fsync, where nothing but what is durable is left, and after each rename, where that is left as well:
a missing fsync shows at the first of them that needed it. The normal run cuts at all of them in one
play and at a sample in the others; HPC_BATCH_FULL=1 cuts at every effect, in every shape.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from simulation.outage import Play
from simulation.power import SHAPES
from simulation.stage import Stage, stage
from simulation.two_hosts import TwoHosts

FULL = bool(os.environ.get("HPC_BATCH_FULL"))
SEED = 1
SAMPLE = 12
"""Cuts of each disk that the normal run tries of plays other than `good`."""


def good(world: TwoHosts) -> None:
    """A job with an input through the store, over an older file, and one with two outputs."""
    world.older("A", "one")
    world.drop("A", "two", "pair", "atomic")
    world.drop("A", "one", "carry", "atomic")


def bad(world: TwoHosts) -> None:
    """A job that is cancelled and one that fails."""
    world.older("A", "one")
    world.drop("A", "one", "fail", "atomic")
    world.drop("A", "two", "long", "atomic")
    world.cancel("A", "two")


def alone(world: TwoHosts) -> None:
    """One job that leaves room for another one in its pilot."""
    world.drop("A", "one", "long", "atomic")


PLAYS: dict[str, tuple[Callable[[TwoHosts], None], bool]] = {
    "good": (good, False),
    "bad": (bad, False),
    "deadly": (good, True),
    "alone": (alone, False),
}
"""What users do, and whether a pilot dies over the jobs."""


class Point(NamedTuple):
    """Where the power is cut, and what is left."""

    effects: int
    """So many have happened."""
    shape: str


@pytest.fixture(scope="module")
def on_stage() -> Iterator[Stage]:
    with stage() as made:
        yield made


def points(stage: Stage, name: str, disk: str) -> list[Point]:
    """Return the points at which a play is cut."""
    begin, kills = PLAYS[name]
    with stage.world(SEED) as world:
        play = Play(world, begin, kills=kills)
        assert play.until(None)
        trace, naps = world.system.trace, play.naps
        root = f"{world.root}/{disk}/"
    if disk == "server":
        # All that a running job has written may be lost here, its claim included. That a part of it
        # is lost while its pilot lives on, nobody could tell from a job that failed.
        return [Point(nap, "lost") for nap in range(1, naps)]
    if FULL:
        return [Point(number, shape) for number in range(len(trace)) for shape in SHAPES]
    found = []
    for number, (call, path) in enumerate(trace):
        if call in ("fsync", "syncfs") and path.startswith(root):
            found.append(Point(number, "lost"))
        elif call == "rename" and path.startswith(root):
            found.append(Point(number + 1, "last"))
    step = 1 if name == "good" else max(1, len(found) // SAMPLE)
    return found[::step] + [
        Point(number, "any") for number in range(3, len(trace), len(trace) // 7)
    ]


@pytest.mark.parametrize(
    ("name", "disk"),
    [
        *[(name, disk) for name in ("good", "bad") for disk in ("A", "C")],
        ("deadly", "C"),
        ("alone", "server"),
    ],
)
def test_a_power_cut_takes_nothing_that_was_acknowledged(
    on_stage: Stage, name: str, disk: str
) -> None:
    begin, kills = PLAYS[name]
    tried = points(on_stage, name, disk)
    for point in tried:
        with on_stage.world(SEED) as world:
            play = Play(world, begin, kills=kills)
            if disk == "server":
                assert not play.until(None, naps=point.effects)
            else:
                assert not play.until(point.effects)
            try:
                play.cut(disk, point.shape, seed=point.effects)
                play.recover()
            except AssertionError as error:
                at = world.system.trace[point.effects - 1] if disk != "server" else ""
                raise AssertionError(f"{point}, after {at}: {error}") from error
    print(f"{name}, {disk}: {len(tried)} cuts")
