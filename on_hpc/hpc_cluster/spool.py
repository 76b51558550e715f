"""The spool: the tree of tickets on the cluster, and the verbs that move them.

    workspace (0700)
      PROTOCOL   incoming/  ready/  running/  done/INSTANCE/     tickets (`ticket`)
      jobs/J/    description.json  in0  in1  cancel  aN/         the data, which never moves
      inputs/KEY   slots/K/   pilots/P/   trash/   kept/

A job's state is the folder its ticket lies in, and a transition is one rename of that one file, so
exactly one actor wins it. Every verb here is one such row; its docstring names it. After a failed
rename the target is looked for (`files.move`), because a network file system may do the work and
report an error.

Verbs that end in `_all` take a batch and sync each folder once. A claim is not synced: lost in a
power cut, the job is claimed again. Everything that another machine is told about is.
"""

import errno
import os
import re
import stat
from typing import Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from hpc_cluster import ACCEPTED, PROTOCOL, durable, files
from hpc_cluster.errors import WorkspaceError
from hpc_cluster.ticket import KINDS, NO_PILOT, Ticket, instance_of, parse

FOLDERS = (
    "incoming",
    "ready",
    "running",
    "done",
    "jobs",
    "inputs",
    "slots",
    "pilots",
    "trash",
    "kept",
)
"""What a workspace holds beside PROTOCOL."""

LISTED = ("incoming", "ready", "running", "ready", "done")
"""The order of a census: a job that moves forward meanwhile is rather seen twice than missed."""


ADVICE = {
    errno.ENOENT: "its parent folder does not exist: make it, or correct the path",
    errno.ENOTDIR: "it, or a part of its path, is no folder: correct the path",
    errno.EACCES: "permission denied: give a folder that this account owns",
    errno.EPERM: "not permitted: give a folder that this account owns",
    errno.EROFS: "the file system is read-only",
    errno.ENOSPC: "no space is left there",
    errno.EDQUOT: "the quota is used up there",
}
"""What an operator is told of a workspace that cannot be made."""

DRAFTS = {
    "": re.compile(r"PROTOCOL\.[0-9a-f]{8}\.new"),
    "slots": re.compile(r"[0-9]+\.[0-9a-f]{16}"),
    "inputs": re.compile(r"\.clock\.[0-9a-f]{16}"),
    "pilots": re.compile(r"trouble\.[0-9a-f]{8}\.new"),
}
"""Folder: names there that live for a moment, or for good where their maker was killed. No name is
ever used again, so an old one is nobody's."""


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


class Spool:
    """The verbs on one workspace. Make one with `Spool.open` or `Spool.make`."""

    def __init__(self, workspace: str) -> None:
        self.workspace = os.path.abspath(workspace)
        """The absolute path, as given."""
        self.root = files.to_bytes(self.workspace)
        """The same as bytes."""
        self._mtimes: Dict[str, int] = {}

    # ---- the workspace -----------------------------------------------------------------------

    @classmethod
    def open(cls, workspace: str) -> "Spool":
        """Return the spool of an existing workspace.

        Raises WorkspaceError, and OSError for what may pass.
        """
        spool = cls(workspace)
        try:
            text = files.read_bytes(spool.path("PROTOCOL"), 100).decode("ascii", "replace").strip()
        except FileNotFoundError:
            raise WorkspaceError(
                f"{spool.workspace} is no workspace of hpc_batch (it has no file PROTOCOL). "
                "Check the path; the submitter makes a new one by itself"
            ) from None
        except OSError as error:
            if error.errno in files.PASSING:
                raise
            raise _unusable(spool.workspace, error) from error
        if text not in [str(number) for number in ACCEPTED]:
            raise WorkspaceError(
                f"the workspace {spool.workspace} has protocol {text!r} and this program speaks "
                f"{PROTOCOL}: use a checkout of the same release on both sides (the cluster is "
                "upgraded first), or another workspace"
            )
        if os.stat(spool.root).st_uid != os.geteuid():
            raise WorkspaceError(
                f"the workspace {spool.workspace} belongs to another account: all service hosts "
                "of one workspace log in as one account"
            )
        return spool

    @classmethod
    def make(cls, workspace: str) -> Tuple["Spool", bool]:
        """Return the spool, made first where the workspace is missing, and whether it was made.

        Raises WorkspaceError, and OSError for what may pass.

        Folders come first and PROTOCOL last. Empty folders of our names without PROTOCOL are a
        making that was interrupted, and it is continued; anything in them without PROTOCOL is
        refused, since it may be a workspace whose PROTOCOL was lost.
        """
        spool = cls(workspace)
        try:
            if files.exists(spool.path("PROTOCOL")):
                return cls.open(workspace), False
            files.make_folder(spool.root)
            held = [name for name in FOLDERS if files.exists(spool.path(name))]
            full = [name for name in held if os.listdir(spool.path(name))]
            if full and not files.exists(spool.path("PROTOCOL")):
                raise WorkspaceError(
                    "{} has no file PROTOCOL but holds {}: not made by hpc_batch, or damaged. Give "
                    "another workspace, or look at these folders and move them away".format(
                        spool.workspace, ", ".join(full)
                    )
                )
            files.change_mode(spool.root, 0o700)
            for name in FOLDERS:
                files.make_folder(spool.path(name))
            durable.sync_folder(spool.root)
            _sync_parent(spool.root)
            files.replace(
                spool.path("PROTOCOL"),
                f"{PROTOCOL}\n".encode("ascii"),
                f".{os.urandom(4).hex()}.new",
            )
        except OSError as error:
            if error.errno in files.PASSING and error.errno not in ADVICE:
                raise
            raise _unusable(spool.workspace, error) from error
        return cls.open(workspace), True

    # ---- paths -------------------------------------------------------------------------------

    def path(self, *names: str) -> bytes:
        """Return the path of something in the workspace."""
        return self.root + b"/" + files.to_bytes("/".join(names))

    def job_folder(self, job: str) -> bytes:
        """Return jobs/J."""
        return self.path("jobs", job)

    def input_path(self, job: str, number: int) -> bytes:
        """Return jobs/J/inN."""
        return self.path("jobs", job, f"in{number}")

    def incoming_path(self, job: str, session: str) -> bytes:
        """Return incoming/J.S."""
        return self.path("incoming", f"{job}.{session}")

    def attempt_folder(self, job: str, attempt: int) -> bytes:
        """Return jobs/J/aN."""
        return self.path("jobs", job, f"a{attempt}")

    def pilot_folder(self, pilot: str) -> bytes:
        """Return pilots/P."""
        return self.path("pilots", pilot)

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

    def begin_all(self, jobs: Sequence[str], session: str) -> None:
        """Nothing to incoming: make incoming/J.S and jobs/J of a batch; not yet durable.

        Made again, a ticket only becomes younger. An instance's done folder is made here as well.
        """
        for instance in sorted({instance_of(job) for job in jobs}):
            files.make_folder(self.path("done", instance))
        for job in jobs:
            files.make_folder(self.job_folder(job))
            files.write_new(self.incoming_path(job, session), b"")

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
            self.discard(self.job_folder(job), keep=keep)
        if jobs:
            self._sync("kept" if keep else "trash", "jobs")
        rest = [t for found in self.tickets_of(jobs).values() for t in found]
        for ticket in rest:
            files.unlink(self.ticket_path(ticket))
        durable.sync_folders(os.path.dirname(self.ticket_path(ticket)) for ticket in rest)

    def discard(self, path: bytes, *, keep: bool) -> None:
        """Move a folder of the workspace to trash/ (or kept/) under a name of its own."""
        name = files.from_bytes(os.path.basename(path))
        folder = "kept" if keep else "trash"
        for number in range(1000):
            target = self.path(folder, name + (f".{number}" if number else ""))
            try:
                files.rename(path, target)
                return
            except FileNotFoundError:
                # RACE: another purge, or this one before it was killed, was here first.
                return
            except OSError as error:
                # What was discarded before has this name.
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise

    def drafts(self) -> List[bytes]:
        """Return the paths of what is being made just now, or was left by a killed maker."""
        found = []
        for folder, pattern in DRAFTS.items():
            where = self.path(folder) if folder else self.root
            found += [files.join(where, n) for n in files.names(where) if pattern.fullmatch(n)]
        return found

    def remove(self, draft: bytes) -> None:
        """Remove a draft, file or folder."""
        if stat.S_ISDIR(files.mode_of(draft, follow=False)):
            files.remove_tree(draft)
        else:
            files.unlink(draft)

    def empty_trash(self, go_on: Callable[[], bool]) -> bool:
        """Delete what lies in trash/ while `go_on` says so; tell whether it is empty now."""
        for name in sorted(os.listdir(self.path("trash"))):
            if not _delete(files.join(self.path("trash"), name), go_on):
                return False
        return True


def _sync_parent(root: bytes) -> None:
    """Make the workspace's own name durable, where its parent folder may be opened."""
    try:
        durable.sync_folder(os.path.dirname(root))
    except PermissionError:
        # RACE: none; a site may let nobody list the folder of all accounts.
        return


def _delete(path: bytes, go_on: Callable[[], bool]) -> bool:
    """Delete a tree while `go_on` says so; False when something is left."""
    if not go_on():
        return False
    try:
        mode = os.lstat(path).st_mode
        if not stat.S_ISDIR(mode):
            files.unlink(path)
            return True
        # A job may have left folders that even their owner cannot list or empty.
        if mode & stat.S_IRWXU != stat.S_IRWXU:
            files.change_mode(path, 0o700)
        with os.scandir(path) as entries:
            there = list(entries)
        for entry in there:
            if entry.is_dir(follow_symlinks=False):
                _delete(entry.path, go_on)
            elif go_on():
                files.unlink(entry.path)
        return files.remove_folder(path)
    except OSError as error:
        # RACE: another pass empties the same trash. What cannot be deleted is tried again later.
        return error.errno in files.GONE


def _unusable(workspace: str, error: OSError) -> WorkspaceError:
    """Return what to tell the operator when the file system refuses."""
    advice = ADVICE.get(error.errno or 0, str(error))
    return WorkspaceError(f"the workspace {workspace} cannot be used: {advice}")
