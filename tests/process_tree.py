"""Who is whose child, as a machine's /proc tells it."""

from __future__ import annotations

import os
from pathlib import Path


def parent(pid: int, proc: Path = Path("/proc")) -> int | None:
    """Return the number of a process's parent; None where it has ended."""
    try:
        text = (proc / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[1])


def descendants(pid: int, proc: Path = Path("/proc")) -> list[int]:
    """Return the numbers of a process's children, and of theirs."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir(proc):
        above = parent(int(entry), proc) if entry.isdigit() else None
        if above is not None:
            children.setdefault(above, []).append(int(entry))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found
