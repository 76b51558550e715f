"""Lingering: how long a pass goes on serving, and how the next one joins it.

cron starts a pass each minute. One that lingers keeps its login until second 55 of the minute; the
one that cron starts next waits for the lock if the first is still at its last words. So the service
is there all the time, and each minute begins with a fresh process that has read everything anew.
"""

from __future__ import annotations

LAST_SECOND = 55
LOCK_S = 10.0
"""A pass that lingers begins its end at LAST_SECOND of a minute; one that finds the lock held waits
for it so long. Together they reach LAST_SECOND + LOCK_S beyond the minute's end: no gap."""

WHOLE_S = 75.0
"""Who needs the lock and is no pass waits so long: a whole minute of a pass, and its end."""


def serving_s(linger_s: float, now_s: float) -> float:
    """Return for how long a pass that begins at a Unix time serves: so long as it may linger, or
    until the last second 55 of a minute within that."""
    end = now_s + linger_s
    last = end - (end - LAST_SECOND) % 60
    return (last if last > now_s else end) - now_s
