"""Stuck: a job that does not move on: why, since when, and what comes of it. Values in, values out.

    phase                     stuck on                                         in the end
    STAGING                   inputs that do not get there (a full disk)       stage_in
    PUBLISHED   ready         a time limit that fits no pilot any more         rejected
    PUBLISHED   done          outputs that cannot be fetched (a full disk)     stage_out
    PUBLISHED   done          files that are not to be found on the cluster    lost, stage_out
    PUBLISHED   no ticket     files that somebody removed from the cluster     lost
    PLACING     UNPLACING     destinations that cannot be written              stage_out
    ANSWERING                 an answer that cannot be written                 tried for ever

What concerns all jobs at once (no pilot, no cluster, no pass) is no job's own and told elsewhere.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from hpc_batch.plan import DOUBT_S, LOST_CENSUSES, LOST_S, STUCK_S

if TYPE_CHECKING:
    from hpc_batch.record import Record

ABOUT_S = 600
"""How exactly it is told when a job is given up."""


@dataclass(frozen=True)
class Stuck:
    """Why a job does not move on."""

    since: str
    """UTC."""
    why: str
    """One sentence, about one job."""
    until: str | None
    """When it is answered with the error, UTC; None: it is tried again without an end."""
    reason: str | None
    """The answer's reason then."""

    @property
    def next(self) -> str:
        """Return what happens next, a clause."""
        again = "every pass tries again"
        if self.until is None:
            return again
        if self.reason == "lost":
            again = "every pass looks again"
        return f"{again}; at about {self.until} it is answered with the error {self.reason}"


def stuck_of(record: Record, state: str, waited_s: float) -> Stuck | None:
    """Return what a job is stuck on.

    `state` is what people see of it (`report.SHOWN`); `waited_s` for how long it has been stuck, as
    passes count it: only time in which they run.
    """
    if record.phase == "ANSWERING" and record.message:
        return Stuck(record.since, record.message, None, None)
    if record.phase == "PUBLISHED" and record.missing and record.missing_since:
        why = (
            f"its ticket is not to be found on the cluster (looked for {record.missing} times; "
            f"after {LOST_CENSUSES} times and {LOST_S // 3600} hours it is lost)"
        )
        since = record.missing_since
        return Stuck(since, why, _later(LOST_S - waited_s), "lost")
    if record.phase == "PUBLISHED" and record.doubts and record.doubted_since:
        why = f"{record.message} (looked for {record.doubts} times)"
        return Stuck(record.doubted_since, why, _later(DOUBT_S - waited_s), "lost or stage_out")
    if record.stuck_since is None:
        return None
    reason = {"STAGING": "stage_in", "PUBLISHED": "stage_out"}.get(record.phase, "stage_out")
    if record.phase == "PUBLISHED" and state == "staged":
        reason = "rejected"
    since = record.stuck_since
    return Stuck(since, record.message or "", _later(STUCK_S - waited_s), reason)


def _later(seconds: float) -> str:
    """Return a moment so far from now, in tens of minutes, so that it is the same in each pass."""
    then = time.time() + max(0.0, seconds)
    moment = datetime.fromtimestamp(-(-then // ABOUT_S) * ABOUT_S, timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
