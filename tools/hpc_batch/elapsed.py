"""Elapsed time, as the passes of one state folder have seen it go by.

What is given up after two days must not be given up because somebody set the clock, nor wait for
years because somebody set it back. So nothing is decided by the host's clock: every pass adds the
time since the one before to a count that is kept with the state, and ages are differences of that
count. Within one boot the time is the monotonic clock's. Over a boot it is the host's clock's, and
never less than nothing. No gap counts more than GAP_S: who is asked every minute shall answer for
two days, not in two passes with a holiday between them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from hpc_cluster import clock

GAP_S = 3600.0
"""More than between any two passes of a cron job, and small against every patience."""


class Elapsed:
    """The count of one pass. `Elapsed.since(kept)` begins it; `kept()` is for the next one."""

    def __init__(self, seconds: float) -> None:
        self._began, self._before = clock.monotonic(), seconds

    @classmethod
    def since(cls, kept: Any) -> Elapsed:
        """Go on from what the last pass kept; from nothing where that says nothing."""
        if not isinstance(kept, Mapping):
            return cls(0.0)
        seconds = _number(kept.get("seconds"))
        same = kept.get("boot") == clock.boot()
        name, now = ("monotonic", clock.monotonic()) if same else ("unix", time.time())
        gap = now - _number(kept.get(name), now)
        return cls(seconds + min(max(gap, 0.0), GAP_S))

    def seconds(self) -> float:
        """Return the count now."""
        return self._before + clock.monotonic() - self._began

    def age_s(self, then: object) -> float:
        """Return how long ago the count was `then`; 0 where that is no count of ours."""
        return max(0.0, self.seconds() - _number(then, self.seconds()))

    def kept(self) -> dict[str, Any]:
        """Return what the next pass needs."""
        now = clock.monotonic()
        return {
            "seconds": round(self.seconds(), 3),
            "boot": clock.boot(),
            "monotonic": now,
            "unix": time.time(),
        }


def _number(value: object, default: float = 0.0) -> float:
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if known else default  # type: ignore[arg-type]
