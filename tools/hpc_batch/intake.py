"""Intake: taking drops from the dropbox, when their writers are done, and never twice.

What lies there is seen by `listing`; which of it is taken is `settling`'s to say.

Taking is a durable intent and one rename: the drop becomes `.hpc_batch/J.drop`, and with that the
job is ours. Its answer's disk space is reserved first.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Any, Iterable, Mapping

from hpc_batch import jobfile
from hpc_batch.config import Config
from hpc_batch.journal import Damaged
from hpc_batch.listing import Drop, may_submit, recorded
from hpc_batch.record import Record, new_id, now, stamp
from hpc_batch.records import Records
from hpc_batch.settling import Look, look
from hpc_batch.state import State
from hpc_cluster import durable, files

ANSWER_BYTES = 4096
"""Disk space reserved for an answer when its drop is taken: one block of most file systems.

More would have to be given back when the answer is written, which on a disk that is told of each
free block takes longer than all else. A disk that is full then gets an answer with shorter streams.
"""


class Intake:
    """The steps that take drops; every one may be repeated after a kill."""

    def __init__(self, config: Config, state: State, records: Records) -> None:
        self.config, self.state, self.records = config, state, records
        self._untold: dict[str, dict[str, str]] = {}
        """J: what its `.submitted` is to tell."""
        self._echoes: dict[str, str] = {}
        """J: what that repeats, of jobs that were checked since `tell`."""

    def take(self, drops: Iterable[Drop]) -> list[Record]:
        """– to INTENT to ACCEPTED: make settled drops ours. Returns the records of those we got."""
        blank = self._blank()
        new = [self._intent(blank, drop) for drop in drops]
        if not new:
            return []
        self.records.save_all(new)
        return self._accept(new, [])

    def _blank(self) -> Record:
        """Return what the records of all new jobs have in common."""
        host, workspace = self.config.remote.host or "", self.config.env["workspace"]
        dropbox = str(self.config.cronjob.dropbox)
        return Record("", "INTENT", "", dropbox, host, workspace, since=now())

    def _intent(self, blank: Record, drop: Drop) -> Record:
        return blank.but(
            id=new_id(self.state.instance),
            name=recorded(drop.name),
            times={"dropped": stamp(drop.changed)},
        )

    def accept(self, intents: list[Record]) -> list[Record]:
        """INTENT to ACCEPTED: reserve the answer, rename the drop; without a drop, to –.

        An old answer of that name that nobody has read is moved aside first.
        """
        drops = {r.id: self.state.of_job(r.id, "drop") for r in intents}
        gone = files.missing(drops.values())
        missing = [r for r in intents if drops[r.id] in gone or not files.exists(drops[r.id])]
        left = {r.id for r in missing}
        return self._accept(missing, [r for r in intents if r.id not in left])

    def _accept(self, missing: list[Record], accepted: list[Record]) -> list[Record]:
        """Rename what is `missing`; return the records of that and of what was `accepted`."""
        files.reserve_all(
            [(self.state.of_job(r.id, "answer"), _reservation(r)) for r in missing], ANSWER_BYTES
        )
        sources = {r.id: self.drop_path(r) for r in missing}
        vanished, unanswered = [], files.missing(f"{s}.finished" for s in sources.values())
        for record in missing:
            source = sources[record.id]
            if f"{source}.finished" not in unanswered:
                move_aside(f"{source}.finished")
            if files.move(source, self.state.of_job(record.id, "drop")):
                accepted.append(record)
            else:
                vanished.append(record)
        durable.sync_folders([str(self.state.inner), str(self.state.dropbox)])
        self.discard(vanished)
        entered = [r.enter("ACCEPTED", times={**r.times, "accepted": now()}) for r in accepted]
        self.records.save_all(entered)
        return entered

    def discard(self, intents: list[Record]) -> None:
        """INTENT to –: the drop was withdrawn before it was ours."""
        for record in intents:
            files.unlink(self.state.of_job(record.id, "answer"))
        self.records.remove_all(intents)

    def drop_path(self, record: Record, ending: str = "") -> str:
        """Return the path of NAME.job, or of NAME.job plus an ending, in the dropbox."""
        return os.path.join(
            os.fsdecode(str(self.config.cronjob.dropbox)),
            os.fsdecode(files.to_bytes(record.name)) + ending,
        )

    def look(self, record: Record) -> Look:
        """Look at a drop that was taken. Raises OSError."""
        return look(self.state.of_job(record.id, "drop"))

    def text(self, drop: Look) -> bytes:
        """Return the text of a taken drop, as that look has it.

        Raises OSError, and PermissionError where its owner may not submit jobs here; EAGAIN where
        the owner's name is not to be had.
        """
        if drop.error is not None:
            raise drop.error
        accepted = may_submit(drop.owner, self.config.cronjob.accept_from)
        if accepted is None:
            raise OSError(errno.EAGAIN, f"user {drop.owner} has no name on this machine")
        if not accepted:
            text = f"user {drop.owner} is not in [cronjob] accept_from"
            raise PermissionError(errno.EPERM, text)
        return drop.text

    def accepted(self, records: list[Record], papers: Mapping[str, Mapping[str, Any]]) -> None:
        """Note what was found right, for its first `.submitted`."""
        self.submitted(records, "accepted")
        self._echoes.update((record.id, papers[record.id]["echo"]) for record in records)

    def submitted(self, records: Iterable[Record], state: str, message: str | None = None) -> None:
        """Note what `.submitted` of each job is to tell when the sweep ends, or has to wait.

        `message` tells what it waits for, where something is wrong.
        """
        for record in records:
            node = {"id": record.id, "since": now(), "state": state}
            if message is not None:
                node["message"] = message
            self._untold[record.id] = node

    def tell(self) -> None:
        """Write `.submitted` of jobs in flight: information for people, never read by us."""
        try:
            readable = self.readable() if self._untold else (0, 0)
        except OSError:
            return  # The next sweep tells.
        jobs = [
            job
            for job in self._untold
            if job in self.records and self.records[job].phase not in ("ANSWERING", "CLEANING")
        ]
        # RACE: none; a dropbox that is full or read-only only shows no progress.
        with contextlib.suppress(OSError, Damaged):
            read = self.records.papers_of((j for j in jobs if j not in self._echoes), "echo")
            for job in jobs:
                papers = {"echo": self._echoes[job]} if job in self._echoes else next(read)
                path = self.drop_path(self.records[job], ".submitted")
                temporary = self.state.of_job(job, "submitted")
                with contextlib.suppress(OSError):
                    text = jobfile.submitted_text(self.echo(job, papers)[0], self._untold[job])
                    files.show_to(temporary, path, text, *readable)
        self._untold.clear()
        self._echoes.clear()

    def echo(self, job: str, papers: Mapping[str, Any]) -> tuple[str | None, bytes | None]:
        """Return what the answer repeats of a job: its description, or the text of another drop.

        `papers` are some that were read already. Raises OSError for what may pass.
        """
        if "echo" in papers:
            return papers["echo"], None
        text = self.records.job_file(job)
        description = jobfile.echo(text)
        return description, None if description is not None else text

    def readable(self) -> tuple[int, int]:
        """Return mode and group of what users read: by the umask, and the dropbox's own."""
        return 0o666 & ~umask(), os.stat(self.state.dropbox).st_gid

    def cancel(self, name: str, job: str) -> None:
        """Move NAME.job.cancel to the job of that name that is in flight."""
        source = os.path.join(os.fsdecode(str(self.state.dropbox)), name + ".cancel")
        files.move(source, self.state.of_job(job, "cancel"))
        durable.sync_folders([str(self.state.inner), str(self.state.dropbox)])


def move_aside(path: str) -> None:
    """Rename a file to the first PATH.N that is free; nothing happens when it is not there."""
    if not files.exists(path):
        return
    number = 1
    while files.exists(f"{path}.{number}"):
        number += 1
    files.move(path, f"{path}.{number}")


def umask() -> int:
    """Return this process's umask."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _reservation(record: Record) -> bytes:
    """Return how a reserved answer begins, so that a restored state can tell whose it is."""
    return files.to_json({"name": record.name, "id": record.id})
