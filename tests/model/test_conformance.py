"""The real functions do what the model says: random traces of the model, replayed on real folders.

A trace is drawn while it is replayed: at each point either somebody else acts, or the pass makes
its next effect, is killed before it, or is told that it failed. What the pass wants to do next must
be what the model allows next, and after every step the world must look like the model's state.
Every trace ends without faults, and with the job answered once and nothing left.

Seeds are fixed; HPC_BATCH_FULL=1 replays more, HPC_BATCH_SEED=N one. A seed that failed is kept in
KEPT for good.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from model import puppet
from model.protocol import Bounds, Protocol
from model.real_world import RealWorld, expected
from model.world_state import World, numbered

BOUNDS = Bounds(existing=(True, False), forget=False, again=True, meddles=True)

CLAIMS = BOUNDS._replace(claims=True)
"""The storage forgets claims, too."""

KEPT: tuple[int, ...] = (136, 138, 156, 242)
"""Seeds that failed once."""

FULL = bool(os.environ.get("HPC_BATCH_FULL"))
SEEDS = (*KEPT, *(n for n in range(400 if FULL else 24) if n not in KEPT))
if os.environ.get("HPC_BATCH_SEED"):
    SEEDS = (int(os.environ["HPC_BATCH_SEED"]),)

SILENT = (
    "prepare: look",
    "prepare: no folder",
    "cancel: asked",
    "purge: incoming",
    "purge: tickets",
    "clean: tidy",
    "clean: drop",
)
"""What leaves no trace where there is nothing to do."""

AT_ONCE = ("finish", "tickets", "rename")
"""What the model does with the look before it."""

ENDLESS = ("user: drop again", "take: the next drop")
"""The next drop of the same name is another job's story."""

RARE = {
    "user: withdraw": 0.005,
    "user: cancel": 0.02,
    "user": 0.1,
    "reaper": 0.1,
    "kill": 0.2,
    "unclaim": 0.3,
    "release": 0.3,
    "storage: forget": 0.7,
    "storage: sync": 0.1,
}
"""What makes for short stories, by the whole name, who it is, or what: its share of the draws."""


class Replay:
    """One trace."""

    def __init__(self, real: RealWorld, seed: int, bounds: Bounds) -> None:
        self.real, self.model, self.draw = real, Protocol(bounds), random.Random(seed)
        self.seed = seed
        self.w: World = self.model.initial
        self.trace: list[str] = []
        self.counted = 0

    def advance(self, name: str, after: World) -> None:
        """Take a step of the model, and see that the real world has taken it."""
        before, self.w = self.w, numbered(after)
        self.trace.append(name)
        self.counted += 1
        for i, (was, now) in enumerate(zip(before.pilots, self.w.pilots)):
            if len(was) == 3 and len(now) < 3 and not name.startswith("pq"[i]):
                self.real.lost(i)
        self.compare()

    def compare(self) -> None:
        seen, wanted = self.real.seen(), expected(self.w)
        outs = seen["outs"]  # of the model, without those that nobody can read again
        seen["outs"] = {n: outs[n] for n in wanted["outs"] if n in outs}
        wrong = {k: (seen.get(k), wanted.get(k)) for k in wanted if seen.get(k) != wanted[k]}
        assert not wrong, f"(real, model): {wrong} after {' > '.join(self.trace)}"

    # ---- the pass ----------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin the step that is next, where there is one, and stand before its first effect."""
        at = self.model._first(self.w)
        if at:
            step = "take" if at[0] == "take" else str(at[0])
            self.enter(at)
            self.real.begin_step(step)
            self.settle()

    def enter(self, at: tuple[object, ...]) -> None:
        self.w = numbered(self.w._replace(at=at, own=5 if at[0] == "stage" else 0))

    def settle(self) -> None:
        """Bring the model to where the pass stands: through what leaves no trace, or its end."""
        near = self.real.near
        assert near is not None
        assert near.error is None, (near.error, self.trace)
        while (near.over and self.w.at) or (not near.over and self.offered(near.at) is None):
            if not self.w.at:
                self.enter(self.model._first(self.w))
                assert self.w.at, f"the pass wants {near.at} after {self.trace}"
                continue
            silent = [s for s in self.model._perform(self.w) if s[0] in SILENT]
            if not silent:
                # Somebody else was faster: the call will find nothing to do.
                names = [s[0] for s in self.model._perform(self.w)]
                assert near.at is not None, f"model at {self.w.at}: {names}; {self.trace}"
                assert near.at.split()[0] in ("rename", "keep", "remove"), (near.at, names)
                self.trace.append(f"({near.at}: nothing)")
                near.go()
                continue
            self.trace.append(silent[0][0])
            self.w = numbered(silent[0][1])
        if near.over:
            self.real.near = None
            self.w = numbered(self.w._replace(own=0))
        self.compare()

    def offered(self, effect: str | None) -> tuple[str, World] | None:
        """Return the model's step for an effect, if it is next."""
        if not self.w.at:
            return None
        for name, after in self.model._perform(self.w):
            words = "publish" if name.startswith("publish: ") and "save" not in name else ""
            if effect in (name.partition(": ")[2], words):
                return name, after
        return None

    def go(self, order: str = "go") -> None:
        """Let the pass make its effect."""
        near = self.real.near
        assert near is not None
        step = self.offered(near.at)
        if step is None:
            self.settle()  # somebody else was faster
            return
        near.go(order)
        if order == "fail":
            self.trace.append("fails")
        else:
            self.w = step[1]
            self.trace.append(step[0] + ("" if order == "go" else ", said to have failed"))
            self.counted += 1
        if near.over or self.offered(near.at) is None:
            self.settle()
        elif order != "fail":
            self.w = numbered(self.w)
            self.compare()

    def kill(self, *, late: bool) -> None:
        late = late and self.w.at[1] in ("stage", "prepare", "publish", "cancel", "purge")
        steps = dict(self.model._killed(self.w))
        name = next(n for n in steps if n.startswith("kill, late") == late)
        self.real.kill(late=late)
        self.advance(name, steps[name])

    # ---- everybody ---------------------------------------------------------------------------

    def others(self) -> list[tuple[str, World]]:
        """Return what others than the pass can do now."""
        whole = [s for s in self.model.steps(self.w) if s[0] not in ENDLESS]
        mine = ("kill", "take", *self.real.steps.perform, "prepare", "purge")
        found = []
        for name, after in whole:
            who = name.partition(":")[0]
            if name.startswith("kill") or who in mine:
                continue
            if self.draw.random() > self.share(name):
                continue
            found.append((name, after))
        return found

    def share(self, name: str) -> float:
        who, _, what = name.partition(": ")
        return RARE.get(name, RARE.get(who, RARE.get(what, 1.0)))

    def happen(self, name: str, after: World) -> None:
        if name.startswith("late "):
            late = self.real.late
            assert late is not None and late.far is not None
            words = name.partition(": ")[2], "publish" if "late publish" in name else ""
            if late.far.at in words:
                late.far.go()
            if not after.late:
                self.real.late_dies()
        elif name.endswith(": finish") and self.is_stopped(name):
            self.real.happen(name + " cancelled")
        elif name.endswith((": kill", ": stop")):
            self.real.rest("pq".index(name[0]))
        elif name == "storage: forget":
            self.real.forget(*self.w.unsynced[1:])
        elif name != "storage: sync":
            self.real.happen(name)
        self.advance(name, after)
        late = self.real.late
        if late is not None and late.far is not None and late.far.at in AT_ONCE and self.w.late:
            steps = [s for s in self.model.steps(self.w) if s[0].startswith("late ")]
            self.happen(*next(s for s in steps if s[0] != "late dies"))

    def is_stopped(self, name: str) -> bool:
        return bool(self.w.pilots["pq".index(name[0])][0] == "stop")

    def turn(self, *, calm: bool) -> None:
        """Let one thing happen; where it is calm, nothing that is a fault."""
        near = self.real.near
        if near is not None and near.at in AT_ONCE:
            self.go()
            return
        chance = self.draw.random()
        if near is not None:
            if not calm and chance < 0.12:
                self.kill(late=self.draw.random() < 0.6)
                return
            # What was refused once is tried again, and may be refused again.
            refused = 0.6 if self.trace and self.trace[-1] == "fails" else 0.2
            if not calm and chance < refused and str(near.at).split()[0] in ("keep", "put"):
                self.go(self.draw.choice(["fail", "done but fail"]))
                return
            if chance < 0.6:
                self.go()
                return
        elif chance < 0.4:
            self.begin()
            return
        steps = self.others()
        if calm:
            bad = (
                "user",
                "reaper",
                "storage",
                "p: kill",
                "q: kill",
                "p: un",
                "q: un",
                "p: rel",
                "q: rel",
            )
            steps = [s for s in steps if not s[0].startswith(bad) or self.is_needed(s[0])]
        if steps:
            self.happen(*self.draw.choice(steps))

    def is_needed(self, name: str) -> bool:
        """A ticket that no living pilot holds must be taken from the dead one."""
        held = [t for t in self.w.tickets if t[0] == "running"]
        return name.startswith("reaper") and any(self.w.pilots[t[3]][1:] != t[1:3] for t in held)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_trace_of_the_model_is_what_really_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    replayed(tmp_path, monkeypatch, seed, BOUNDS)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_trace_in_which_claims_are_forgotten_is_what_really_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    replayed(tmp_path, monkeypatch, seed, CLAIMS)


def replayed(root: Path, monkeypatch: pytest.MonkeyPatch, seed: int, bounds: Bounds) -> None:
    """Draw a trace, and replay it."""
    puppet.attach(monkeypatch)
    real = RealWorld(root, bounds.existing)
    replay = Replay(real, seed, bounds)
    try:
        for _ in range(60 + 10 * (seed % 10)):
            replay.turn(calm=False)
            assert not replay.model.wrong(replay.w)
        for _ in range(600):
            if replay.model.is_settled(replay.w) and real.near is None:
                break
            replay.turn(calm=True)
        assert replay.model.is_settled(replay.w), (replay.w, replay.trace)
    finally:
        real.close()
    print(f"\nseed {seed}: {replay.counted} steps")
