"""Claims: which waiting job a pilot takes next, and which it leaves.

The line is made from one listing of ready/ and serves for a second, however many short jobs are
claimed from it meanwhile. Service hosts take turns in it, each with its oldest job first, so that
one with a thousand jobs delays nobody else; a pilot remembers whose turn it was, and where it knows
nothing yet a draw of its own decides who begins. Last come jobs that had trouble in this pilot, and
suspects (a pilot died on them), which run alone.

A job that does not fit what is left of the walltime is left to the next pilot. A fresh pilot begins
with such jobs as only a fresh one can do: those that need nearly all of the walltime, and those
that the end of another one interrupted. A job that a newer release described is left, too.
"""

import collections
import hashlib
import os
from typing import Deque, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from hpc_cluster import clock, description, files
from hpc_cluster.description import Description
from hpc_cluster.errors import ClusterError
from hpc_cluster.spool import Spool
from hpc_cluster.ticket import Ticket
from hpc_cluster.walltime import Walltime

LINE_S = 1.0
"""A listing of ready/ serves for so long."""

STAGING_S = 600.0
"""An incoming ticket that did not change for so long stops counting: its session is dead."""

NEARLY = 0.8
"""A job that may need this part of the walltime is begun by a fresh pilot first."""


KEPT = 64
"""So many descriptions that were read to choose are kept for who starts the job."""


class Need(NamedTuple):
    """What is known of a job's times."""

    walltime_s: float
    """So much it may need, its grace included; infinite: it is for a newer release."""
    limit_s: Optional[int]
    """Its time limit."""


class Pace(NamedTuple):
    """How fast a pilot's jobs are: from those that ended in it and those that run."""

    seconds: float
    """So long they ran together, so far."""
    jobs: int
    """So many they are."""

    @property
    def mean_s(self) -> float:
        """How long a job takes that says nothing itself; 0 where nothing is known."""
        return self.seconds / self.jobs if self.jobs else 0.0


class Claims:
    """The work of one workspace, as one pilot sees it."""

    def __init__(self, spool: Spool, pilot: str, walltime: Walltime) -> None:
        self._spool, self._pilot, self._walltime = spool, pilot, walltime
        self.claimed = 0
        """So many jobs it claimed."""
        self.leaves = 0
        """So many it has room for, and leaves."""
        self._line: Deque[Ticket] = collections.deque()
        self._listed_at = float("-inf")
        self._left = 0
        self._turns: Dict[str, int] = {}
        self._avoided: Set[str] = set()
        self._needs: Dict[str, Need] = {}
        self._described: Dict[str, Description] = {}
        self._incoming: Dict[str, Tuple[float, float]] = {}

    def claim(self, room: int, *, alone: bool) -> List[Ticket]:
        """Ready to running, of at most `room` jobs; `alone`: nothing runs in this pilot."""
        if not self._line or clock.monotonic() >= self._listed_at + LINE_S:
            self._list()
        taken: List[Ticket] = []
        while self._line and len(taken) < room:
            ticket = self._line[0]
            if ticket.crashes and (taken or not alone):
                break
            self._line.popleft()
            if not self._fits(ticket):
                self._left += 1
                continue
            try:
                ours = self._spool.claim(ticket, self._pilot)
            except OSError:
                if taken:
                    break  # those are to be begun; the next look meets the error again
                raise
            if ours is None:
                continue  # RACE: another pilot was faster
            self.claimed += 1
            self._turns[ours.instance] = self.claimed
            taken.append(ours)
            if ticket.crashes:
                break
        self.leaves = self._left if len(taken) < room and not self._line else 0
        return taken

    def described(self, job: str) -> Optional[Description]:
        """Return the description of a job that was just claimed, where it was read for that."""
        return self._described.get(job)

    def avoid(self, job: str) -> None:
        """Claim a job only after the others: it had trouble in this pilot."""
        self._avoided.add(job)

    def is_work_left(self) -> bool:
        """Tell whether anything is ready that fits, or on its way.

        What is on its way counts while its ticket changes, by our own clock.
        """
        now = clock.monotonic()
        fresh: Dict[str, Tuple[float, float]] = {}
        for ticket in self._spool.tickets("incoming"):
            try:
                written = os.stat(self._spool.ticket_path(ticket)).st_mtime
            except FileNotFoundError:
                # RACE: published since it was listed; ready/ is listed after this.
                continue
            before = self._incoming.get(ticket.name)
            same = before is not None and before[0] == written
            fresh[ticket.name] = before if before is not None and same else (written, now)
        self._incoming = fresh
        if any(now - since < STAGING_S for _, since in fresh.values()):
            return True
        self._list()
        fits = [self._fits(ticket) for ticket in self._line]
        self.leaves = fits.count(False)
        return any(fits)

    def outlasts(self, running: Iterable[Tuple[Ticket, float]], pace: Pace, slots: int) -> bool:
        """Tell whether the work that is left exceeds the walltime that is left.

        `running` are this pilot's jobs and for how long each has run. A job counts as its time
        limit; without one, as the mean of this pilot's jobs. The work is shared evenly between
        `slots` places in every pilot that runs something now. It is an estimate, and enough: a
        wrong one costs a pilot that finds little to do.
        """
        left_s = self._walltime.left_s()
        ready = self._spool.tickets("ready")
        if left_s == float("inf") or not ready:
            return False
        pilots = {self._pilot} | {ticket.pilot for ticket in self._spool.tickets("running")}
        room_s = max(0.0, left_s) * slots * len(pilots)
        for ticket, ran_s in running:
            room_s -= max(0.0, self._takes_s(ticket, pace) - ran_s)
        for ticket in ready:
            room_s -= self._takes_s(ticket, pace)
            if room_s < 0 or not self._fits(ticket):
                return True
        return False

    def _list(self) -> None:
        """List ready/ and make the line."""
        tickets = self._spool.waiting()
        ready = {ticket.job for ticket in tickets}
        self._needs = {job: need for job, need in self._needs.items() if job in ready}
        line: List[Ticket] = []
        for group in (
            [t for t in tickets if not t.crashes and t.job not in self._avoided],
            [t for t in tickets if not t.crashes and t.job in self._avoided],
            [t for t in tickets if t.crashes],
        ):
            line += take_turns(group, self._turns, self._pilot)
        if not self.claimed and self._walltime.end is not None:
            heads = line[: len({ticket.instance for ticket in line})]
            first = [ticket for ticket in heads if self._wants_a_fresh_pilot(ticket)]
            line = first + [ticket for ticket in line if ticket not in first]
        self._line = collections.deque(line)
        self._listed_at, self._left = clock.monotonic(), 0

    def _wants_a_fresh_pilot(self, ticket: Ticket) -> bool:
        need_s = self._need(ticket).walltime_s
        interrupted = ticket.starts > 0 and not ticket.crashes
        return interrupted or NEARLY * self._walltime.full_s < need_s < float("inf")

    def _fits(self, ticket: Ticket) -> bool:
        """Whether the rest of the walltime suffices for what a job may need."""
        need_s = self._need(ticket).walltime_s
        return need_s < float("inf") and self._walltime.fits(need_s, fresh=not self.claimed)

    def _takes_s(self, ticket: Ticket, pace: Pace) -> float:
        limit_s = self._need(ticket).limit_s
        return pace.mean_s if limit_s is None else float(limit_s)

    def _need(self, ticket: Ticket) -> Need:
        if ticket.job not in self._needs:
            path = files.join(self._spool.job_folder(ticket.job), description.NAME)
            try:
                found = description.read(path)
                if len(self._described) >= KEPT:
                    self._described.clear()
                self._described[ticket.job] = found
                self._needs[ticket.job] = Need(found.needs_s, found.time_limit)
            except description.NewerProtocol:
                self._needs[ticket.job] = Need(float("inf"), None)
            except (OSError, ClusterError):
                # Claimed, it is answered with the reason.
                self._needs[ticket.job] = Need(0.0, None)
        return self._needs[ticket.job]


def take_turns(tickets: Sequence[Ticket], turns: Mapping[str, int], salt: str) -> List[Ticket]:
    """Return the tickets with their instances taking turns, each in the order given.

    `turns` tells when an instance had its last turn; who had none yet comes first, in an order that
    differs from one `salt` to another.
    """
    lines: Dict[str, List[Ticket]] = {}
    for ticket in tickets:
        lines.setdefault(ticket.instance, []).append(ticket)

    def turn(instance: str) -> Tuple[int, str]:
        draw = hashlib.sha256((salt + instance).encode("ascii")).hexdigest()
        return turns.get(instance, 0), draw

    order = {instance: number for number, instance in enumerate(sorted(lines, key=turn))}
    placed = [
        (place, order[instance], ticket)
        for instance, line in lines.items()
        for place, ticket in enumerate(line)
    ]
    return [ticket for _, _, ticket in sorted(placed)]
