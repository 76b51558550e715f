"""Where simulated worlds are played: everything that must be replaced for that, in one place."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from simulation.cluster import pilots_are_actors
from simulation.login import logins_are_simulated
from simulation.system import installed
from simulation.two_hosts import TwoHosts

SHARED_MEMORY = Path("/dev/shm")
"""Nothing here is kept, and a simulated fsync is enough."""


class Stage:
    """A folder for worlds, one after the other."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self._folder, self._patch, self._count = folder, patch, 0

    @contextmanager
    def world(self, seed: int = 0) -> Iterator[TwoHosts]:
        """Make a world, and leave nothing of it."""
        self._count += 1
        root = self._folder / str(self._count)
        world = TwoHosts(root, seed)
        with self._patch.context() as patch:
            logins_are_simulated(patch, world.net)
            with installed(world.system):
                try:
                    yield world
                finally:
                    world.end()
        shutil.rmtree(root)


@contextmanager
def stage() -> Iterator[Stage]:
    """Make a stage."""
    parent = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="hpc_batch-", dir=parent))
    patch = pytest.MonkeyPatch()
    try:
        pilots_are_actors(patch, folder)
        yield Stage(folder, patch)
    finally:
        patch.undo()
        shutil.rmtree(folder, ignore_errors=True)


Story = list[tuple[Any, ...]]
"""Verbs of a world with their arguments."""


def tell(world: TwoHosts, story: Story) -> None:
    """Let a story happen, and look at the invariants after every sentence."""
    for verb, *arguments in story:
        getattr(world, verb)(*arguments)
        world.verify()
