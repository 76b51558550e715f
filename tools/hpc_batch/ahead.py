"""Ahead: drops whose time of change lies in the future by the dropbox's own clock.

The file server's clock was set back since, or was wrong when they were written. Nothing can be said
of their age but for how long we have seen them unchanged; `state/ahead.json` remembers that.
"""

from __future__ import annotations

from typing import Any

from hpc_batch.elapsed import Elapsed


class Ahead:
    """What is known of such drops, in one pass."""

    def __init__(self, kept: Any, elapsed: Elapsed) -> None:
        self._kept: dict[str, Any] = kept if isinstance(kept, dict) else {}
        self._elapsed = elapsed
        self.seen: dict[str, list[float]] = {}
        """What the next pass is to know."""

    @property
    def is_news(self) -> bool:
        """Whether this pass has seen anything else than the last one."""
        return self.seen != self._kept

    def clock(self, name: str, changed: float, clock: float) -> float:
        """Return the clock by which a drop's age is to be measured: of most, the dropbox's own."""
        if changed <= clock:
            return clock
        entry = self._kept.get(name)
        if not isinstance(entry, list) or len(entry) != 2 or entry[0] != changed:
            entry = self.seen.get(name, [changed, self._elapsed.seconds()])
        self.seen[name] = entry
        return changed + self._elapsed.age_s(entry[1])
