"""The plan: from what was observed to the next step of each job. Values in, values out.

    phase        observed                         step
    INTENT                                        accept
    ACCEPTED     settled                          check
                 cancelled                        withdraw
    STAGING                                       stage
                 cancelled                        withdraw
    PUBLISHING                                    publish
    PUBLISHED    a done ticket                    collect
                 still incoming                   publish: the storage forgot the rename
                 cancelled, not yet told          cancel
                 no ticket                        miss
    PLACING                                       place
    UNPLACING                                     unplace
    ANSWERING                                     answer
    CLEANING                                      clean

A cluster that did not answer says nothing: without a census no published job is judged at all.
Steps are performed in the order of ORDER, each for all its jobs as one batch, and a job may take
several steps in one pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from hpc_batch.record import Phase

Step = Literal[
    "accept",
    "check",
    "withdraw",
    "stage",
    "publish",
    "collect",
    "cancel",
    "miss",
    "fit",
    "place",
    "unplace",
    "answer",
    "clean",
    "wait",
]

Place = Literal["incoming", "ready", "running", "done"]

ORDER: tuple[Step, ...] = (
    "accept",
    "publish",
    "miss",
    "fit",
    "collect",
    "place",
    "unplace",
    "answer",
    "check",
    "withdraw",
    "stage",
    "publish",
    "cancel",
    "answer",
    "clean",
)
"""What frees space comes before what uses it; an answer decided late goes out in the same pass."""

BEGUN: dict[Phase, Step] = {
    "INTENT": "accept",
    "PUBLISHING": "publish",
    "PLACING": "place",
    "UNPLACING": "unplace",
    "ANSWERING": "answer",
    "CLEANING": "clean",
}
"""Phases that go on with one step, whatever is observed."""

STUCK_S = 48 * 3600
"""What may pass is waited for so long; then the job is answered with the error."""

LOST_CENSUSES = 10
LOST_S = 24 * 3600
"""A published job is lost after so many complete censuses without a ticket, over so long a time."""

DOUBT_LOOKS = 3
DOUBT_S = 600
"""What belongs to a ticket in done is believed missing after so many looks, over so long a time."""


class Seen(NamedTuple):
    """What a pass observed of one job. There are many, several times in each pass."""

    phase: Phase
    cancel: bool = False
    """J.cancel is there."""
    told: bool = False
    """The cluster was told of the cancellation during this pass."""
    counted: bool = True
    """The census was asked for after the job was published, and answered completely."""
    ticket: Place | None = None
    """The folder its ticket lies in, in the census; `incoming` only of its own session."""
    missing: int = 0
    """Complete censuses without a ticket before this one."""
    fits: bool = True
    """Its time limit fits a pilot of this configuration, and did so before."""


def next_step(seen: Seen) -> Step:
    """Return the one step that moves a job on."""
    if seen.phase in BEGUN:
        return BEGUN[seen.phase]
    if seen.phase in ("ACCEPTED", "STAGING"):
        if seen.cancel:
            return "withdraw"
        return "check" if seen.phase == "ACCEPTED" else "stage"
    if not seen.counted:
        return "wait"
    if seen.ticket == "done":
        return "collect"
    if seen.ticket == "incoming":
        return "publish"
    if seen.cancel and not seen.told:
        return "cancel"
    if seen.ticket is None or seen.missing:
        return "miss"
    return "fit" if seen.ticket == "ready" and not seen.fits else "wait"


def is_lost(missing: int, missing_s: float) -> bool:
    """Tell whether a job's ticket has been missing often and long enough to answer `lost`."""
    return missing >= LOST_CENSUSES and missing_s >= LOST_S


def is_believed(looks: int, doubted_s: float) -> bool:
    """Tell whether files of a job were missed often and long enough to answer that they are."""
    return looks >= DOUBT_LOOKS and doubted_s >= DOUBT_S
