"""Reaping: what dead pilots held is taken from them.

First it is written down why a pilot is dead (`dead.json`); only then its tickets and its slot are
taken, so that a kill in between leaves a dead pilot to go on with, and never a ticket whose pilot
nobody knows to be dead.
"""

import os
from typing import Any, Dict, List, Tuple

from hpc_cluster import backoff, batch, clock, description, files, pilot, slots, trash
from hpc_cluster.errors import ClusterError
from hpc_cluster.lookout import Seen, works
from hpc_cluster.policy import Policy
from hpc_cluster.spool import Spool
from hpc_cluster.ticket import Ticket

KEPT = 10
"""So many dead pilots keep their folder, and all that died within KEPT_S."""

KEPT_S = 24 * 3600.0

LOG_BYTES = 4096
"""So much of the end of a pilot's log is looked at for why it died."""


def bury(spool: Spool, one: Seen) -> bool:
    """Write down why a pilot is dead, before anything is taken from it.

    False: that is done, and the batch system did not answer when it was told to end it.
    """
    name = one.info["pilot"]
    # RACE: it may have claimed, worked and closed between being read and being asked for.
    info = files.merge(one.info, pilot.read(spool, name))
    if info.get("dead"):
        return True  # RACE: another host found it dead just now, and wrote down why
    answered = True
    if one.state is not None and one.state.state != batch.ENDED:
        # It hangs: its slot will be given away, so it must not come back.
        command = batch.dialect(info.get("batch", "local")).cancel(one.state.native_id)
        answered = not batch.run(command).timed_out
    reason = None if one.state is None else one.state.reason
    pilot.write(
        spool,
        name,
        {"dead": one.dead, "ended": clock.iso(), "end_reason": reason},
        "dead.json",
    )
    # One that was never submitted, because its submitter was killed, says nothing about pilots; nor
    # does one that an operator sent away.
    tried = info.get("started") or info.get("native_id") or info.get("unclear")
    tried = tried and not info.get("dismissed")
    if tried and not works(info) and not _holds(spool, name):
        where = f" on {info['host']}" if info.get("host") else ""
        last = info.get("trouble") or batch.last_lines(_log(spool, name))
        words = f"pilot {name} ended{where} before it claimed a job: {one.dead}"
        cancelled = not info.get("started") and (reason or "").startswith("CANCELLED")
        words += f" ({last})" if last else ""
        backoff.note(spool, "pilot", words, info.get("recipe"), passing=cancelled)
    return answered


def _holds(spool: Spool, name: str) -> bool:
    """Tell whether a pilot has a ticket: it may have been killed before it wrote its claim down."""
    return any(ticket.pilot == name for ticket in spool.tickets("running"))


def _log(spool: Spool, name: str) -> str:
    """Return the end of what a pilot printed."""
    try:
        data = files.read_bytes(files.join(spool.pilot_folder(name), "log"))
    except OSError:
        return ""
    return data[-LOG_BYTES:].decode("utf-8", "replace")


def reap(spool: Spool, policy: Policy) -> List[str]:
    """Running to ready, or done as died: take the tickets from dead pilots.

    That an operator sent the pilot away is no crash of its jobs.
    """
    reaped = []
    known: Dict[str, Dict[str, Any]] = {}
    for ticket in spool.tickets("running"):
        if ticket.pilot not in known:
            known[ticket.pilot] = pilot.read(spool, ticket.pilot)
        info = known[ticket.pilot]
        if not info.get("dead"):
            continue
        attempts, starts = _limits(spool, policy, ticket)
        if info.get("dismissed"):
            went = spool.release(ticket, starts)
        else:
            went = spool.crash(ticket, attempts, starts)
        if went != "gone":
            reaped.append(ticket.job)
    return reaped


def _limits(spool: Spool, policy: Policy, ticket: Ticket) -> Tuple[int, int]:
    try:
        path = files.join(spool.job_folder(ticket.job), description.NAME)
        found = description.read(path)
        return found.attempts, found.starts
    except (OSError, ClusterError):
        return policy.attempts, policy.starts


def free_slots(spool: Spool) -> None:
    """Held to free, of every slot whose pilot is dead."""
    for slot, name in slots.holders(spool).items():
        if pilot.read(spool, name).get("dead"):
            slots.free(spool, slot, name)


def clean(spool: Spool) -> None:
    """Move the folders of pilots to the trash that died long ago and that no ticket names."""
    now = files.server_now(spool.path("pilots"), f"probe.{clock.node()}")
    dead = []
    for name in pilot.pilots(spool):
        try:
            died = os.stat(files.join(spool.pilot_folder(name), "dead.json")).st_mtime
        except FileNotFoundError:
            continue
        dead.append((died, name))
        code = files.join(spool.pilot_folder(name), "code")
        if files.exists(code):
            trash.discard(spool, code, keep=False)
    old = [name for died, name in sorted(dead)[:-KEPT] if now - died > KEPT_S]
    if not old:
        return
    named = {t.pilot for t in spool.tickets("running")} | set(slots.holders(spool).values())
    for instance in files.names(spool.path("done")):
        named |= {t.pilot for t in spool.tickets("done", instance)}
    for name in old:
        if name not in named:
            trash.discard(spool, spool.pilot_folder(name), keep=False)
