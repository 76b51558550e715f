"""Leftovers: what lies on the cluster of a service host's jobs and nobody is going to ask for.

Jobs that no record knows, of a state that is lost or came back older; tickets of sessions that were
cut off; what a killed step left half made; folders that lie in kept/ for longer than wanted. Only
what has not changed since a moment goes, by the file server's clock: a younger one may be of
somebody who is at work.
"""

import os
import re
import stat
from typing import Collection, Dict, List

from hpc_cluster import files, ticket, trash
from hpc_cluster.spool import Spool

NEVER = float("inf")
"""After any moment."""

DRAFTS = {
    "": re.compile(r"PROTOCOL\.[0-9a-f]{8}\.new"),
    "slots": re.compile(r"[0-9]+\.[0-9a-f]{16}"),
    "inputs": re.compile(r"\.clock\.[0-9a-f]{16}"),
    "pilots": re.compile(r"trouble\.[0-9a-f]{8}\.new"),
}
"""Folder: names there that live for a moment, or for good where their maker was killed. No name is
ever used again, so an old one is nobody's."""


class Leftovers:
    """Those of one service host, as one look of one of its sessions has found its tickets."""

    def __init__(self, spool: Spool, session: str, instance: str) -> None:
        self._spool = spool
        self._session = session
        self._instance = instance
        self._tickets = self._tickets_by_job()

    def purge_orphans(self, known: Collection[str], before: float) -> List[str]:
        """Purge the jobs that nobody knows, and return them."""
        orphans = sorted(
            job
            for job, mine in self._tickets.items()
            if job not in known and self._changed(job, mine) < before
        )
        self._spool.purge_all(orphans, keep=False)
        return orphans

    def remove_litter(self, known: Collection[str], before: float) -> List[str]:
        """Remove tickets of dead sessions, of jobs that are known, and return their names."""
        jobs = [mine for job, mine in self._tickets.items() if job in known]
        litter = [t for mine in jobs for t in self._litter(mine)]
        litter = [t for t in litter if _changed(self._spool.ticket_path(t), before) < before]
        for found in litter:
            files.unlink(self._spool.ticket_path(found))
        return [t.name for t in litter]

    def remove_drafts(self, before: float) -> None:
        """Remove what killed steps left half made."""
        for draft in self._drafts():
            if _changed(draft, before) < before:
                _remove(draft)

    def discard_kept(self, before: float) -> List[str]:
        """Discard what lies in kept/, and return its names."""
        names = self.kept(before)
        for name in names:
            trash.discard(self._spool, self._spool.path("kept", name), keep=False)
        return names

    def kept(self, before: float = NEVER) -> List[str]:
        """Return what lies in kept/ of this service host's jobs, and does so since `before`."""
        found = []
        for name in files.names(self._spool.path("kept")):
            job = name.partition(".")[0]
            ours = ticket.is_job(job) and ticket.instance_of(job) == self._instance
            # Renaming a folder into kept/ changes its ctime.
            if ours and _changed(self._spool.path("kept", name), NEVER) <= before:
                found.append(name)
        return found

    def _drafts(self) -> List[bytes]:
        """Return the paths of what is being made just now, or was left by a killed maker."""
        found = []
        for folder, pattern in DRAFTS.items():
            where = self._spool.path(folder) if folder else self._spool.root
            found += [files.join(where, n) for n in files.names(where) if pattern.fullmatch(n)]
        return found

    def _tickets_by_job(self) -> Dict[str, List[ticket.Ticket]]:
        """Return the tickets of every job of this service host that left anything here."""
        names = files.names(self._spool.path("jobs"))
        jobs = [n for n in names if ticket.is_job(n) and ticket.instance_of(n) == self._instance]
        found: Dict[str, List[ticket.Ticket]] = {job: [] for job in jobs}
        for state in ticket.STATES:
            for mine in self._spool.tickets(state, self._instance):
                found.setdefault(mine.job, []).append(mine)
        return found

    def _changed(self, job: str, tickets: List[ticket.Ticket]) -> float:
        """Return when anything about a job changed last.

        RACE: a ticket that has moved on since it was listed changed just now.
        """
        moved = [_changed(self._spool.ticket_path(t), NEVER) for t in tickets]
        return max([_changed(self._spool.job_folder(job), 0.0)] + moved)

    def _litter(self, tickets: List[ticket.Ticket]) -> List[ticket.Ticket]:
        """Return incoming tickets of other sessions that cannot be published any more.

        One that is its job's only ticket may be: a record may still say so after a long outage.
        """
        incoming = [t for t in tickets if t.state == "incoming" and t.session != self._session]
        return incoming if len(tickets) > len(incoming) else []


def _changed(path: bytes, missing: float) -> float:
    """Return when a file's content, name or links changed last."""
    try:
        return os.lstat(path).st_ctime
    except FileNotFoundError:
        return missing


def _remove(draft: bytes) -> None:
    """Remove a draft, file or folder."""
    if stat.S_ISDIR(files.mode_of(draft, follow=False)):
        files.remove_tree(draft)
    else:
        files.unlink(draft)
