"""Waiting: what published jobs wait for, in words, as far as the last look at the pilots tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpc_batch.reasons import is_obstacle, meaning


@dataclass(frozen=True)
class Wait:
    """What a job waits for that lies ready on the cluster."""

    message: str
    """One sentence."""
    held: bool = False
    """No pilot can be had for now: something is wrong."""
    obstacle: bool = False
    """The batch system has a pilot, and will not start it until somebody does something."""


def wait_of(
    pilots: Sequence[Mapping[str, Any]], trouble: Mapping[str, Any] | None, *, paused: bool
) -> Wait:
    """Return what jobs wait for, by the report of the verb `pilots`."""
    living = [p for p in pilots if p.get("state") != "ended" and not p.get("closed")]
    running = [p for p in living if p.get("started")]
    if running:
        where = sorted({str(p["node"]) for p in running if p.get("node")})
        return Wait("its turn: a pilot is at work" + (f" on {', '.join(where)}" if where else ""))
    if living:
        free = [p for p in living if not is_obstacle(p.get("reason"))]
        one = (free or living)[0]
        known = f"{one['native_id']} " if one.get("native_id") else ""
        reason = f" ({one['reason']})" if one.get("reason") else ""
        means = f"; {meaning(one['reason'])}" if not free and meaning(one["reason"]) else ""
        return Wait(
            f"a pilot: {known}is {one.get('state')} since {one.get('since')}{reason}{means}",
            held=not free,
            obstacle=not free,
        )
    if trouble is not None:
        message = f"a pilot: {trouble.get('message')}; the next try is at {trouble.get('next')}"
        return Wait(message, held=True)
    return Wait("a pilot: the service is paused" if paused else "a pilot")
