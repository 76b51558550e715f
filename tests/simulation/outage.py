"""A world whose power is cut at a chosen effect, on a service host or at the file server.

A short play of passes, pilots and time is made again and again, each time up to another effect.
There the power is cut: the disk is rebuilt as it may be after that (`power.SHAPES`), whoever ran on
that machine is dead, and the world goes on until it is quiet.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import yaml
from simulation.power import Disk
from simulation.system import RAW
from simulation.two_hosts import HOP_S, TwoHosts

ROUNDS = 30


class Play:
    """A play in a world: what users do first, then passes, pilots and time until all is quiet."""

    def __init__(
        self, world: TwoHosts, begin: Callable[[TwoHosts], None], *, kills: bool = False
    ) -> None:
        self.world = world
        begin(world)
        self.disks = {name: Disk(world.system.root, (name,)) for name in ("A", "C")}
        world.system.disks = list(self.disks.values())
        self._initial = dict(world.stands)
        self._naps: int | None = None
        self._cut = ""
        self.naps = 0
        """How often all pilots slept."""
        self._kills, self._killed = kills, False
        """Whether a pilot dies over its job, and whether it has."""

    def until(self, effects: int | None, naps: int | None = None) -> bool:
        """Play up to so many effects, or until the pilots sleep for the n-th time; tell whether it
        went to its end."""
        world = self.world
        world.system.steps.left, self._naps = effects, naps
        try:
            for number in range(ROUNDS):
                if not self._pass() or not self._pilots(number):
                    return False
                if world.is_quiet():
                    return True
            raise AssertionError(f"not quiet: {world.picture()}")
        finally:
            world.system.steps.left = None

    def _pass(self) -> bool:
        host = self.world.hosts["A"]
        host.actor = self.world.new_pass("A")
        if host.actor.resume() != "over":
            return False
        assert host.actor.error is None, repr(host.actor.error)
        host.actor = None
        return True

    def _pilots(self, number: int) -> bool:
        """Time passes; one pilot dies over its job, where the play wants so."""
        world = self.world
        for _ in range(3):
            world.system.now += HOP_S
            for pilot in list(world.cluster.pilots.values()):
                if pilot.alive and pilot.turn() == "steps":
                    return False
            self.naps += 1
            if self.naps == self._naps:
                return False
        running = world.workspace / "running"
        if self._kills and not self._killed and running.exists() and RAW["listdir"](running):
            self._killed = True
            world.kill_pilot(0)
        return True

    def cut(self, disk: str, shape: str, seed: int = 0) -> None:
        """Cut the power of a disk, and let everybody who ran there be dead.

        A: service host A with its dropbox, state and outputs. C: the cluster, with its file server.
        server: the cluster's file server alone; pilots live on. They wait for it, as clients do, so
        this is for moments when nothing of theirs is under way.
        """
        world, self._cut = self.world, disk
        if disk == "A":
            world.kill("A")
        elif disk == "C":
            for far in world.net.far_ends:
                far.actor.kill()
                far.broken = True
            for pilot in world.cluster.pilots.values():
                pilot.kill()
        if disk != "A":
            world.suspects.update(world.cluster.pilots)
        self.disks["A" if disk == "A" else "C"].cut(shape, seed)
        if disk == "A":
            self._remember()

    def _remember(self) -> None:
        """Only answers that are still there were given."""
        world, folder = self.world, self.world.hosts["A"].here.dropbox
        world.stands = dict(self._initial)
        for drop in world.drops:
            drop.answers = []
        for name in RAW["listdir"](folder):
            if ".finished" in name:
                node = yaml.safe_load((folder / name).read_text())["job"]
                drop = world.jobs[node["id"]]
                drop.answers.append(node)
                if node["status"] == "ok":
                    world.stands.update((path, drop.token) for path in drop.targets)

    def recover(self) -> None:
        """Go on until all is quiet, and look what everybody got."""
        world = self.world
        if world.hosts["A"].actor is not None:
            world.run("A", None)
        world.late(10_000)
        world.verify()
        world.until_quiet(("A",))
        for drop in world.drops:
            world.check(drop)
            assert _answers(world, drop.name) == 1, f"{drop.token} has not one answer"
        if self._cut == "A":
            # What is left on the cluster for its sweep has 36 hours.
            here = world.hosts["A"].here
            left = [*RAW["listdir"](here.dropbox / ".hpc_batch"), *RAW["listdir"](here.out)]
            left = [name for name in left if name.startswith(".") or name[8:9] == "-"]
            assert not left, f"left behind: {left}"


def _answers(world: TwoHosts, name: str) -> int:
    folder: Path = world.hosts["A"].here.dropbox
    return sum(n.startswith(f"{name}.job.finished") for n in os.listdir(folder))
