"""The walltime: how long a pilot lives, and what fits into the rest of it.

The end is told by the batch system in this node's own clock, or follows from the option; it is kept
on the monotonic clock. A pilot without an end runs until nothing is left.
"""

import time
from typing import Mapping, NamedTuple, Optional

from hpc_cluster import clock

MARGIN_S = 10.0
"""All jobs are over so long before the end."""

GRACE_S = 30.0
"""A job's grace where it says nothing else."""

WARNING_S = 90
"""The batch system is asked for its warning so long before the end, and may send it up to a minute
early or half a minute late. WARNING_S >= 30 + GRACE_S + MARGIN_S."""

END_TIMES = ("SLURM_JOB_END_TIME", "HPC_BATCH_END_TIME")
"""Variables with the end in Unix time: Slurm's from 23.02 on, and that of our own batch scripts."""


def longest_s(walltime_s: float) -> float:
    """Return what a job may need, its grace included, in a fresh pilot of this walltime."""
    return walltime_s - min(MARGIN_S, 0.05 * walltime_s)


class Walltime(NamedTuple):
    """The times of one pilot, on the monotonic clock."""

    start: float
    end: Optional[float]
    """None: no end."""
    end_unix: Optional[float]
    """The same in Unix time, for readers."""
    asked_s: Optional[float] = None
    """What it was submitted for, in seconds; the batch system may have given less."""

    @classmethod
    def of(cls, limit_s: Optional[float], environment: Mapping[str, str]) -> "Walltime":
        """Return the walltime of a pilot that starts now."""
        now, unix = clock.monotonic(), time.time()
        for name in END_TIMES:
            told = environment.get(name, "")
            if told.isdigit() and int(told) > unix:
                # A clock that is late makes it no longer than it was asked for.
                left_s = min(int(told) - unix, float("inf") if limit_s is None else limit_s)
                return cls(now, now + left_s, unix + left_s, limit_s)
        if limit_s is None:
            return cls(now, None, None)
        return cls(now, now + limit_s, unix + limit_s, limit_s)

    @property
    def full_s(self) -> float:
        """The whole of it; infinite without an end."""
        return float("inf") if self.end is None else self.end - self.start

    @property
    def last_s(self) -> Optional[float]:
        """The moment at which every job must be over."""
        return None if self.end is None else self.start + longest_s(self.full_s)

    def left_s(self) -> float:
        """Return how long jobs may still run; infinite without an end."""
        return float("inf") if self.last_s is None else self.last_s - clock.monotonic()

    def fits(self, need_s: float, *, fresh: bool) -> bool:
        """Tell whether a job that may take so long, its grace included, can be started now.

        `fresh`: nothing has run in this pilot. No other pilot will have more time, so it takes
        whatever fits what it was submitted for, even where it started late, or the batch system
        gave it less: else such a job would be left by one pilot after the other.
        """
        if need_s <= self.left_s():
            return True
        asked_s = self.full_s if self.asked_s is None else self.asked_s
        return fresh and need_s <= longest_s(asked_s)

    def was_filled(self, began: float, ended: float) -> bool:
        """Tell whether a job that was stopped at the end had run since nearly the beginning."""
        if self.end is None:
            return False
        near_end = self.end - ended <= max(0.1 * self.full_s, 60.0)
        return near_end and self.end - began >= 0.9 * self.full_s
