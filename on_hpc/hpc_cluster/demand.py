"""The demand: how many pilots are wanted, and how many there may be.

Work that waits is what lies in ready/ and fits a pilot of this policy, and what is being staged. As
many pilots are wanted as it fills, with the work that runs, at `slots` jobs a pilot, up to `max`. A
pilot that is closing or stopping reaches nothing more and does not count. One that has room and yet
leaves jobs, because too little of its walltime is left, counts only for what it runs.

With `successor`, one pilot more is wanted while one says that the work left exceeds the walltime it
has left (`outlasted`), unless one is waiting in the queue already. It may take a slot beyond `max`,
so that its wait overlaps; so there are never more than `max` + 1.

Service hosts with different policies share a workspace: each submits under its own, and counts the
pilots of all. The largest `max` is the bound.
"""

import os
from typing import NamedTuple, Sequence

from hpc_cluster import clock, description, files
from hpc_cluster.errors import ClusterError
from hpc_cluster.lookout import Seen
from hpc_cluster.policy import Policy
from hpc_cluster.spool import Spool
from hpc_cluster.ticket import Ticket
from hpc_cluster.walltime import longest_s

STAGING_S = 600.0
"""An incoming ticket that did not change for so long is no work that waits."""


class Demand(NamedTuple):
    """What is wanted now."""

    more: int
    """So many pilots more."""
    slots: int
    """In one of the first so many slots."""


def demand(policy: Policy, waiting: int, busy: int, living: Sequence[Seen]) -> Demand:
    """Return what is wanted where so many jobs wait and run, and these pilots live."""
    if not waiting:
        return Demand(0, policy.max)
    reaching = [one for one in living if one.reaches]
    leaving = sum(1 for one in reaching if one.info.get("leaves"))
    filled = -(-(waiting + busy) // policy.slots)
    wanted = max(filled, leaving + 1 if leaving else 0)
    more = max(0, min(policy.max, wanted) - len(reaching))
    outlasted = any(one.info.get("outlasted") for one in living)
    if policy.successor and outlasted and not any(one.waits for one in reaching):
        return Demand(max(more, 1), policy.max + 1)
    return Demand(more, policy.max)


def waiting(spool: Spool, policy: Policy) -> int:
    """Count the jobs that wait for pilots of this policy; no further than it matters."""
    count, enough = 0, (policy.max + 1) * policy.slots
    for ticket in spool.tickets("ready"):
        count += _fits(spool, ticket, policy)
        if count >= enough:
            return count
    incoming = spool.tickets("incoming")
    if incoming:
        now = files.server_now(spool.path("pilots"), f"probe.{clock.node()}")
        for ticket in incoming:
            try:
                # One from the future is as old: the file server's clock was set back since.
                count += abs(now - os.stat(spool.ticket_path(ticket)).st_mtime) < STAGING_S
            except FileNotFoundError:
                # RACE: published since it was listed; then it waits as well.
                count += 1
    return count


def _fits(spool: Spool, ticket: Ticket, policy: Policy) -> bool:
    """Tell whether a pilot of this policy would take a job."""
    path = files.join(spool.job_folder(ticket.job), description.NAME)
    try:
        return description.read(path).needs_s <= longest_s(policy.walltime)
    except description.NewerProtocol:
        return False
    except (OSError, ClusterError):
        # Claimed, it is answered with the reason.
        return True
