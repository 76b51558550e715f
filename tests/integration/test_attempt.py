"""An attempt between the runner's looks."""

from __future__ import annotations

import os
import time
from pathlib import Path

from workshop import Workshop

from hpc_cluster.attempt import Attempt, Context
from hpc_cluster.guard import Guard
from hpc_cluster.walltime import Walltime

PILOT = "9" * 16


def test_an_attempt_has_moved_on_whenever_it_wakes_the_runner(tmp_path: Path) -> None:
    """A runner that wakes and finds nothing to do would sleep until its next look."""
    workshop = Workshop(tmp_path / "w")
    job = workshop.job("#!/bin/sh\necho out\n")
    (ticket,) = workshop.spool.waiting()
    ours = workshop.spool.claim(ticket, PILOT)
    assert ours is not None
    seen: list[str] = []
    attempts: list[Attempt] = []

    def wake() -> None:
        """Look at once, as the runner may: the thread that calls has not ended yet."""
        while not attempts:
            time.sleep(0.001)
        attempts[0].step(alone=True)
        seen.append(attempts[0].phase)

    guard = Guard(60.0)
    try:
        walltime = Walltime.of(None, {})
        context = Context(workshop.spool, PILOT, None, walltime, guard, wake)
        attempts.append(Attempt(context, ours))
        deadline = time.monotonic() + 30
        while attempts[0].outcome is None and time.monotonic() < deadline:
            time.sleep(0.01)
            if attempts[0].phase == "running":
                attempts[0].step(alone=True)
        assert seen[0] != "preparing"
        assert attempts[0].outcome is not None
        assert len(seen) == 2
    finally:
        guard.close()
        workshop.close()
    assert os.path.exists(workshop.spool.path("jobs", job, "a1", "result.json"))
