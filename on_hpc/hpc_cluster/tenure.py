"""Tenure: what a pilot holds, its slot and its tickets, as its runner sees it in listings.

Others may take them away: an operator the slot, and the tickets whoever took the pilot for dead.
One listing means little on a network file system, so what is missing must be so in several in a
row.
"""

import os
from typing import TYPE_CHECKING, Collection, Optional, Sequence

from hpc_cluster import files
from hpc_cluster.spool import Spool
from hpc_cluster.statement import log
from hpc_cluster.ticket import Ticket

if TYPE_CHECKING:
    from hpc_cluster.attempt import Attempt

MISSES = 3
"""In so many listings in a row a slot or a ticket must be missing."""

YOUNG_S = 48 * 3600.0
"""While the storage is full, a job younger than this is given back without counting the start."""

TAKEN = "its slot was given to another pilot"


class Tenure:
    """The tenure of one pilot."""

    def __init__(self, spool: Spool, pilot: str, slot: Optional[int]) -> None:
        """`slot` is None where the pilot has none: it was started by hand."""
        self._spool, self._pilot, self._slot = spool, pilot, slot
        self._misses = 0

    def has_slot(self) -> bool:
        """Tell whether the pilot is in its slot, or needs none."""
        if self._slot is None:
            return True
        return files.exists(self._spool.path("slots", str(self._slot), self._pilot))

    def has_lost_slot(self) -> bool:
        """Look at the slot once more, and tell whether it is another's by now."""
        self._misses = 0 if self.has_slot() else self._misses + 1
        return self._misses >= MISSES

    def mind(self, attempts: Sequence["Attempt"], handed_over: Collection[str]) -> None:
        """Look at the tickets once more: lose attempts without one, give back what nobody knows.

        `handed_over` has the names of tickets that are on their way to done.
        """
        listed = {t.name: t for t in self._spool.tickets("running")}
        for attempt in attempts:
            attempt.misses = 0 if attempt.ticket.name in listed else attempt.misses + 1
            if attempt.misses >= MISSES:
                attempt.lose()
        known = {attempt.ticket.name for attempt in attempts} | set(handed_over)
        for ticket in [t for t in listed.values() if t.pilot == self._pilot]:
            if ticket.name not in known:
                # A claim that was done and reported as failed, or one that it took for lost.
                log(f"release {ticket.name}: {self._spool.release(ticket, 1 << 30)}")

    def is_old(self, ticket: Ticket) -> bool:
        """Tell whether a job has waited so long that a full storage costs it a start."""
        try:
            written = os.stat(self._spool.ticket_path(ticket)).st_mtime
        except FileNotFoundError:
            # RACE: the lease was lost; whoever has the ticket counts.
            return False
        now = files.server_now(self._spool.pilot_folder(self._pilot), "probe")
        return now - written > YOUNG_S
