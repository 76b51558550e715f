"""Two service hosts, their pilots and all that can happen to them, in any order: nothing is lost.

Hypothesis makes up stories of `TwoHosts`; after every sentence the invariants must hold, and at the
end, when all trouble is over, everybody must have the one answer that was due. What failed once is
told again for good (`stories.KEPT`).

Stories are drawn alike in every run. HPC_BATCH_FULL=1 makes up many more, other ones each time, and
HPC_BATCH_EXAMPLES=N so many; one that fails is printed as it must be kept.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from simulation.stage import Stage, Story, stage, tell
from simulation.stories import KEPT
from simulation.two_hosts import HOSTS, KINDS, NAMES

FULL = bool(os.environ.get("HPC_BATCH_FULL"))
EXAMPLES = int(os.environ.get("HPC_BATCH_EXAMPLES", "2000" if FULL else "40"))

hosts, names = some.sampled_from(HOSTS), some.sampled_from(NAMES)
steps = some.one_of(some.none(), some.integers(1, 150))
number = some.integers(0, 3)
disks = some.sampled_from(["C"] + [f"{h}/{f}" for h in HOSTS for f in ("dropbox", "state", "out")])


@pytest.fixture(scope="module")
def on_stage() -> Iterator[Stage]:
    with stage() as made:
        yield made


class Stories(RuleBasedStateMachine):
    """Anything that may happen next."""

    stage: Stage

    def __init__(self) -> None:
        super().__init__()
        self.story: Story = []
        self._open = ExitStack()

    @initialize(seed=some.integers(0, 1 << 16), older=some.booleans())
    def begin(self, seed: int, older: bool) -> None:
        self.world = self._open.enter_context(self.stage.world(seed))
        self.seed = seed
        if older:
            self.happens("older", "A", "one")
            self.happens("older", "B", "two")

    def happens(self, *sentence: Any) -> None:
        """Let it happen, and look."""
        self.story.append(sentence)
        try:
            tell(self.world, [sentence])
        except BaseException:
            self._print()
            raise

    def _print(self) -> None:
        print(f"\n    ({self.seed}, [")
        for sentence in self.story:
            print(f"        {sentence!r},")
        print("    ]),")

    @rule(
        host=hosts,
        name=names,
        kind=some.sampled_from(KINDS),
        way=some.sampled_from(("atomic", "atomic", "naive", "pieces")),
    )
    def drop(self, host: str, name: str, kind: str, way: str) -> None:
        self.happens("drop", host, name, kind, way)

    @rule()
    def more(self) -> None:
        self.happens("more")

    @rule(host=hosts, steps=steps)
    def run(self, host: str, steps: int | None) -> None:
        self.happens("run", host, steps)

    @rule(host=hosts)
    def run_to_the_end(self, host: str) -> None:
        self.happens("run", host, None)

    @rule(host=hosts)
    def kill(self, host: str) -> None:
        self.happens("kill", host)

    @rule(steps=some.integers(1, 60))
    def late(self, steps: int) -> None:
        self.happens("late", steps)

    @rule(number=number, steps=steps)
    def turn(self, number: int, steps: int | None) -> None:
        self.happens("turn", number, steps)

    @rule(number=number)
    def kill_pilot(self, number: int) -> None:
        self.happens("kill_pilot", number)

    @rule(number=number)
    def pause(self, number: int) -> None:
        self.happens("pause", number)

    @rule()
    def wake(self) -> None:
        self.happens("wake")

    @rule(seconds=some.sampled_from((1, 5, 30, 30, 60, 130, 700, 4000)))
    def wait(self, seconds: int) -> None:
        self.happens("wait", seconds)

    @rule(host=hosts, after=some.integers(0, 8), kind=some.sampled_from(("lost", "mute", "late")))
    def disturb(self, host: str, after: int, kind: str) -> None:
        self.happens("disturb", host, after, kind)

    @rule(up=some.booleans())
    def wire(self, up: bool) -> None:
        self.happens("wire", up)

    @rule(silent=some.booleans(), refuses=some.booleans(), unclear=some.integers(0, 2))
    def batch(self, silent: bool, refuses: bool, unclear: int) -> None:
        self.happens("batch", silent, refuses, unclear)

    @rule(what=disks)
    def fill(self, what: str) -> None:
        self.happens("fill", what)

    @rule()
    def free(self) -> None:
        self.happens("free")

    @rule(host=hosts, seconds=some.sampled_from((-86400 * 3, -3600, -5, 5, 3600, 86400 * 3)))
    def clock(self, host: str, seconds: int) -> None:
        self.happens("clock", host, seconds)

    @rule(stale=some.booleans())
    def stale(self, stale: bool) -> None:
        self.happens("stale", stale)

    @rule(host=hosts, name=names)
    def consume(self, host: str, name: str) -> None:
        self.happens("consume", host, name)

    @rule(host=hosts, name=names)
    def cancel(self, host: str, name: str) -> None:
        self.happens("cancel", host, name)

    def teardown(self) -> None:
        try:
            if hasattr(self, "world") and not self.world.wrong:
                self.happens("heal")
                self.happens("clean")
        finally:
            self._open.close()


def test_any_story_ends_with_one_answer_for_every_drop(on_stage: Stage) -> None:
    Stories.stage = on_stage
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Stories,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=40,
            deadline=None,
            database=None,
            derandomize=not FULL,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate,),
        ),
    )


@pytest.mark.parametrize("name", KEPT)
def test_a_story_that_failed_once_ends_well(on_stage: Stage, name: str) -> None:
    seed, story = KEPT[name]
    with on_stage.world(seed) as world:
        tell(world, [*story, ("heal",), ("clean",)])
