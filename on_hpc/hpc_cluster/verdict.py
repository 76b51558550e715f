"""The verdict: what the end of a job means, or of the try to start it. Values in, values out.

A verdict is what the user is answered. Where the job is not to blame, or another pilot may do more
for it, there is none, and an outcome says what becomes of its ticket.
"""

import signal
from typing import NamedTuple, Optional, Union

from hpc_cluster.errors import DescriptionError
from hpc_cluster.preparation import Taken
from hpc_cluster.ticket import Ticket
from hpc_cluster.work import NOT_THE_JOB, CannotStart

BELIEVED = 3
"""A start with this number, or a later one, that is refused for good is the job's last: what was
refused before may have been this node's doing, or a moment's."""


class Verdict(NamedTuple):
    """What the end of a job means."""

    kind: str
    """How its ticket is to end: one of ticket.KINDS."""
    reason: str
    message: str
    """One sentence for people."""


class Outcome(NamedTuple):
    """What to do with the ticket at the end."""

    verb: str
    """finish (it is written), release, unclaim, or drop (it is no longer ours)."""
    trouble: Optional[str] = None
    """What was wrong with the node or the storage."""


UNSTARTED = Verdict("cancelled", "cancelled", "cancelled before it was started")


def of_failure(failure: BaseException, ticket: Ticket) -> Union[Verdict, Outcome]:
    """Judge a job that cannot be started: it is given back or answered, never stuck."""
    if isinstance(failure, OSError) and failure.errno in NOT_THE_JOB:
        return Outcome("unclaim", trouble=f"cannot prepare {ticket.job}: {failure.strerror}")
    if isinstance(failure, Taken):
        return Outcome("release")
    if isinstance(failure, (CannotStart, DescriptionError)):
        return Verdict("fail", getattr(failure, "reason", "exit_code"), str(failure))
    if isinstance(failure, OSError) and ticket.starts < BELIEVED:
        return Outcome("release", trouble=f"cannot prepare {ticket.job}: {failure}")
    return Verdict("fail", "exit_code", f"the job could not be started: {failure}")


def of_refusal(error: OSError, ticket: Ticket, program: str) -> Union[Verdict, Outcome]:
    """Judge a job whose script was prepared, and refused when `program` was to run it."""
    if error.errno in NOT_THE_JOB or error.filename is None:
        # It may run, and nobody knows its number: this folder is left to it.
        return Outcome("release", trouble=f"cannot start {ticket.job}: {error.strerror}")
    words = f"the script cannot be started by {program}: {error.strerror}"
    return Verdict("fail", "exit_code", words)


def of_stop(why: str, limit_s: Optional[int], full_s: Optional[float]) -> Union[Verdict, Outcome]:
    """Judge a job that was stopped: time_limit, cancelled or hand_back.

    `limit_s` is its own time limit. `full_s` is the pilot's walltime, where the job had nearly the
    whole of it: another pilot would have no more.
    """
    if why == "cancelled":
        return Verdict("cancelled", "cancelled", "cancelled while it ran")
    if why == "time_limit":
        return Verdict("fail", "time_limit", f"stopped after its time limit of {limit_s} s")
    if full_s is None:
        return Outcome("release")
    words = f"still running near the end of a pilot of {int(full_s)} s: it needs a longer walltime"
    return Verdict("fail", "time_limit", words)


def of_exit(rc: int, *, starved: bool) -> Verdict:
    """Judge a job that ended by itself.

    `rc` is the script's return code, or a signal's number below 0. `starved`: for want of memory.
    """
    if rc == 0:
        return Verdict("ok", "completed", "processed OK")
    if starved:
        return Verdict("fail", "out_of_memory", "killed for want of memory")
    if rc < 0:
        return Verdict("fail", "exit_code", f"the script was killed by signal {_signal(-rc)}")
    return Verdict("fail", "exit_code", f"the script ended with return code {rc}")


def _signal(number: int) -> str:
    """Return a signal's number and name."""
    known = {int(known): known.name for known in signal.Signals}
    return f"{number} ({known[number]})" if number in known else str(number)
