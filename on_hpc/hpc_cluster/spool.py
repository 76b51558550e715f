"""The spool: the tree of tickets in a workspace, and the verbs that move them.

    incoming/J.S   ready/   running/   done/INSTANCE/      tickets (`ticket`)

A job's state is the folder its ticket lies in, and a transition is one rename of that one file, so
exactly one actor wins it. Every verb here is one such row; its docstring names it. After a failed
rename the target is looked for (`files.move`), because a network file system may do the work and
report an error.

Verbs that end in `_all` take a batch and sync each folder once. A claim is not synced: lost in a
power cut, the job is claimed again. Everything that another machine is told about is.
"""

import os
from typing import Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from hpc_cluster import durable, files, trash
from hpc_cluster.errors import WorkspaceError
from hpc_cluster.ticket import KINDS, NO_PILOT, Ticket, instance_of, parse
from hpc_cluster.workspace import Workspace

LISTED = ("incoming", "ready", "running", "ready", "done")
"""The order of a census: a job that moves forward meanwhile is rather seen twice than missed."""


class Census(NamedTuple):
    """Every ticket of one instance, and how many there are of the others."""

    incoming: List[str]
    """Names of tickets, sorted; so in the other three."""
    ready: List[str]
    running: List[str]
    done: List[str]
    others_ready: int
    """Tickets of other instances that wait."""
    others_running: int


class Spool(Workspace):
    """A workspace with the verbs that move its tickets. Get one with `open` or `make`."""

    def __init__(self, workspace: str) -> None:
        super().__init__(workspace)
        self._mtimes: Dict[str, int] = {}

    # ---- paths -------------------------------------------------------------------------------

    def incoming_path(self, job: str, session: str) -> bytes:
        """Return incoming/J.S."""
        return self.path("incoming", f"{job}.{session}")

    def ticket_path(self, ticket: Ticket) -> bytes:
        """Return where a ticket lies."""
        if ticket.state == "done":
            return self.path("done", ticket.instance, ticket.name)
        return self.path(ticket.state, ticket.name)

    # ---- observing ---------------------------------------------------------------------------

    def tickets(self, state: str, instance: Optional[str] = None) -> List[Ticket]:
        """Return the tickets in one state, sorted by name; `done` needs the instance.

        Foreign names are ignored. A missing folder is an error, not an empty list, but for
        done/INSTANCE, which is made when needed. Raises WorkspaceError.
        """
        folder = self.path("done", instance or "") if state == "done" else self.path(state)
        try:
            names = sorted(files.from_bytes(name) for name in os.listdir(folder))
        except FileNotFoundError:
            if state == "done" and files.exists(self.path("done")):
                return []
            raise WorkspaceError(f"{files.from_bytes(folder)} is missing") from None
        found = [parse(state, name) for name in names]
        return [t for t in found if t is not None and instance in (None, t.instance)]

    def census(self, instance: str) -> Census:
        """List every ticket of an instance: incoming, ready, running, ready again, done."""
        seen: Dict[str, Dict[str, Ticket]] = {state: {} for state in LISTED}
        for state in LISTED:
            wanted = instance if state == "done" else None
            seen[state].update((t.name, t) for t in self.tickets(state, wanted))
        ours = {
            state: sorted(name for name, t in found.items() if t.instance == instance)
            for state, found in seen.items()
        }
        return Census(
            ours["incoming"],
            ours["ready"],
            ours["running"],
            ours["done"],
            len(seen["ready"]) - len(ours["ready"]),
            len(seen["running"]) - len(ours["running"]),
        )

    def tickets_of(self, jobs: Iterable[str]) -> Dict[str, List[Ticket]]:
        """Return all tickets of each of these jobs, in the order of a census."""
        wanted: Dict[str, Dict[Ticket, None]] = {job: {} for job in jobs}
        for state in LISTED:
            owners = sorted({instance_of(job) for job in wanted}) if state == "done" else [None]
            for owner in owners:
                for ticket in self.tickets(state, owner):
                    if ticket.job in wanted:
                        wanted[ticket.job][ticket] = None
        return {job: list(found) for job, found in wanted.items()}

    def waiting(self) -> List[Ticket]:
        """Return the ready tickets in the order to claim them: suspects last, then by age.

        Age is the ticket's mtime, which the file server gave it when its job was loaded; it stays
        through every rename. Suspects are jobs on which a pilot died.
        """
        ages: Dict[str, int] = {}
        tickets = self.tickets("ready")
        for ticket in tickets:
            age = self._mtimes.get(ticket.name)
            ages[ticket.name] = self._mtime(ticket) if age is None else age
        self._mtimes = ages
        return sorted(tickets, key=lambda t: (t.crashes > 0, ages[t.name], t.name))

    def _mtime(self, ticket: Ticket) -> int:
        try:
            return os.stat(self.ticket_path(ticket)).st_mtime_ns
        except FileNotFoundError:
            # RACE: claimed since it was listed; the claim will say so.
            return 0

    def cancel_asked(self, job: str) -> bool:
        """Tell whether somebody asked to stop this job."""
        return files.exists(self.path("jobs", job, "cancel"))

    # ---- staging and publishing --------------------------------------------------------------

    def begin_all(self, jobs: Sequence[str], session: str) -> List[str]:
        """Nothing to incoming: make incoming/J.S and jobs/J of a batch; not yet durable.

        Made again, a ticket only becomes younger. An instance's done folder is made here as well.
        Jobs that were published before are left as they are, and returned: a service host with an
        older journal has forgotten it.
        """
        for instance in sorted({instance_of(job) for job in jobs}):
            files.make_folder(self.path("done", instance))
        again = [job for job in jobs if not files.make_folder(self.job_folder(job))]
        found = self.tickets_of(again) if again else {}
        published = {j for j in again if any(t.state != "incoming" for t in found[j])}
        for job in jobs:
            if job not in published:
                files.write_new(self.incoming_path(job, session), b"")
        return sorted(published)

    def furnished(self, jobs: Sequence[str]) -> None:
        """Incoming stays incoming: make the names of a batch durable that `begin_all` made, and
        those in its folders."""
        durable.sync_folders(
            [self.job_folder(job) for job in jobs]
            + [self.path(name) for name in ("jobs", "done", "incoming") if jobs]
        )

    def renew(self, jobs: Iterable[str], session: str) -> None:
        """Incoming stays incoming: show that its bytes still arrive, by a new mtime."""
        for job in jobs:
            try:
                files.touch(self.incoming_path(job, session))
            except FileNotFoundError:
                # RACE: published or purged meanwhile; then there is nothing to show.
                continue

    def publish_all(self, jobs: Sequence[Tuple[str, str]]) -> Dict[str, str]:
        """Incoming to ready: rename incoming/J.S to ready/J.a0c0 for each (J, S).

        Returns for each J "published", or "already" where incoming/J.S was gone: then it was
        published before, however far it has come since.
        """
        answer = {}
        for job, session in jobs:
            target = self.ticket_path(Ticket("ready", job))
            moved = files.move(self.incoming_path(job, session), target)
            answer[job] = "published" if moved else "already"
        if jobs:
            self._sync("ready", "incoming")
        return answer

    # ---- pilots ------------------------------------------------------------------------------

    def claim(self, ticket: Ticket, pilot: str) -> Optional[Ticket]:
        """Ready to running: one start more, in the pilot's name; None when another was faster."""
        target = ticket._replace(state="running", starts=ticket.starts + 1, pilot=pilot)
        return target if self._move(ticket, target) else None

    def finish(self, ticket: Ticket, kind: str) -> bool:
        """Running to done: the one act that decides. False: the ticket is no longer ours."""
        return self.finish_all([(ticket, kind)])[0]

    def finish_all(self, tickets: Sequence[Tuple[Ticket, str]]) -> List[bool]:
        """Running to done, for a batch; tells for each whether it was still ours."""
        moved = [self._finish(ticket, kind) for ticket, kind in tickets]
        owners = {ticket.instance for (ticket, _), there in zip(tickets, moved) if there}
        if owners:
            self._sync(*["done/" + owner for owner in sorted(owners)] + ["running"])
        return moved

    def release(self, ticket: Ticket, starts: int) -> str:
        """Running to ready: handed back, a start counted and no crash.

        After `starts` starts it goes to done as died instead, so that no job is started for ever.
        Returns "ready", "died" or "gone".
        """
        if ticket.starts >= starts:
            return "died" if self.finish(ticket, "died") else "gone"
        return self._hand_back(ticket, ticket._replace(state="ready", pilot=""))

    def restart(self, ticket: Ticket) -> Optional[Ticket]:
        """Running stays running: one start more; None when the ticket is no longer ours.

        Only the pilot that claimed it may do so, before it begins.
        """
        target = ticket._replace(starts=ticket.starts + 1)
        return target if self._move(ticket, target) else None

    def unclaim(self, ticket: Ticket) -> str:
        """Running to ready: given back before the job was started, so nothing is counted.

        Only the pilot that claimed it may do so, after it removed its attempt's folder.
        Returns "ready" or "gone".
        """
        target = ticket._replace(state="ready", pilot="", starts=ticket.starts - 1)
        return self._hand_back(ticket, target)

    def crash(self, ticket: Ticket, attempts: int, starts: int) -> str:
        """Running to ready with one crash more: its pilot is dead.

        After `attempts` crashes or `starts` starts it goes to done as died instead.
        Returns "ready", "died" or "gone".
        """
        if ticket.crashes + 1 >= attempts or ticket.starts >= starts:
            return "died" if self.finish(ticket, "died") else "gone"
        target = ticket._replace(state="ready", pilot="", crashes=ticket.crashes + 1)
        return self._hand_back(ticket, target)

    def _finish(self, ticket: Ticket, kind: str) -> bool:
        if kind not in KINDS:
            raise ValueError(f"no kind of end: {kind!r}")
        target = ticket._replace(state="done", kind=kind)
        try:
            return self._move(ticket, target)
        except FileNotFoundError:
            # RACE: none; somebody removed the folder by hand.
            if not files.make_folder(self.path("done", ticket.instance)):
                raise
            return self._move(ticket, target)

    def _hand_back(self, ticket: Ticket, target: Ticket) -> str:
        if not self._move(ticket, target):
            return "gone"
        self._sync("ready", "running")
        return "ready"

    def _move(self, ticket: Ticket, target: Ticket) -> bool:
        return files.move(self.ticket_path(ticket), self.ticket_path(target))

    def _sync(self, *folders: str) -> None:
        """Make names durable; the folder that gained one comes first."""
        for folder in folders:
            durable.sync_folder(self.path(*folder.split("/")))

    # ---- the service host's other verbs -------------------------------------------------------

    def cancel_all(self, jobs: Sequence[str]) -> Dict[str, str]:
        """Ask to stop jobs: write jobs/J/cancel; ready to done as cancelled.

        Returns for each J "cancelled" (its ticket says so now), "asked" (it is being staged or it
        runs; who has it will stop it) or "gone" (it has ended, or is not known here).
        """
        for job in jobs:
            try:
                files.write_new(self.path("jobs", job, "cancel"), b"")
            except FileNotFoundError:
                # RACE: purged, or never staged; its tickets decide what is answered.
                continue
        owners = set()
        answer = {}
        for job, tickets in self.tickets_of(jobs).items():
            states = {t.state for t in tickets if t.kind in ("", "cancelled")}
            for ticket in [t for t in tickets if t.state == "ready"]:
                if self._finish(ticket._replace(pilot=NO_PILOT, state="ready"), "cancelled"):
                    states.add("done")
                    owners.add(ticket.instance)
                else:
                    states.add("running")
            answer[job] = "cancelled" if "done" in states else "asked" if states else "gone"
        if owners:
            self._sync(*["done/" + owner for owner in sorted(owners)] + ["ready"])
        return answer

    def purge_all(self, jobs: Sequence[str], *, keep: bool) -> None:
        """Anything to nothing: the job's data goes to trash/ (or kept/), then its tickets go.

        First incoming/J.*, so that nobody publishes what is being removed; then the data; the
        tickets last, so that a kill leaves something to find. Safe to repeat.
        """
        tickets = self.tickets_of(jobs)
        for ticket in [t for found in tickets.values() for t in found if t.state == "incoming"]:
            files.unlink(self.ticket_path(ticket))
        for job in tickets:
            trash.discard(self, self.job_folder(job), keep=keep)
        if jobs:
            self._sync("kept" if keep else "trash", "jobs")
        rest = [t for found in self.tickets_of(jobs).values() for t in found]
        for ticket in rest:
            files.unlink(self.ticket_path(ticket))
        durable.sync_folders(os.path.dirname(self.ticket_path(ticket)) for ticket in rest)
