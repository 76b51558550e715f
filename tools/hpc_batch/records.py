"""All records of one state folder, in memory and in their journals.

A batch of jobs changes together: a line is written to each journal, all are made durable at once,
and only then the change counts. What fails may have entered its phase all the same; so after a
failure the disk is believed, once it has said that what it holds is durable.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hpc_batch import journal
from hpc_batch.journal import Damaged
from hpc_batch.record import BEGUN, NO_RECORD, Record, from_document
from hpc_cluster import durable, files

HOLDS = {
    "description": frozenset(("id", "script", "word", "layout", "inputs", "outputs")),
    "answer": frozenset(("status", "reason", "message", "times", "stdout", "stderr")),
}
"""What each document holds at least."""

LONG = 1 << 20
"""A journal of more bytes is written anew, with its newest papers only."""


class Records:
    """All records of one state folder; none before `load`."""

    def __init__(self, folder: Path) -> None:
        self._root = str(folder)
        self._records: dict[str, Record] = {}
        self._ends: dict[str, int] = {}
        """Where the last whole line of each journal ends."""
        self.damaged: dict[str, str] = {}
        """J: what is wrong with a journal that says nothing; such a job stands still."""
        self._sorted: list[Record] | None = None
        """All records in the order of their drops, until one changes."""

    def load(
        self,
        seen: Callable[[Record], None] = lambda record: None,
        is_taken: Callable[[str], bool] = lambda job: True,
    ) -> Records:
        """Read all records, and return them; `seen` is told of each as it is read.

        `is_taken` tells whether a job has anything in `.hpc_batch`: of one that has not, and whose
        journal says nothing, the intent was never durable, and nothing happened.
        """
        files.make_folder(self._root)
        begun = {}
        for job in files.names(self._root):
            if job.endswith(journal.NEW):
                files.unlink(self.path(job))
                continue
            try:
                data = self._read(job)
            except (Damaged, *NO_RECORD) as error:
                if is_taken(job):
                    self.damaged[job] = str(error)
                else:
                    self._forget(job)
                continue
            except FileNotFoundError:
                continue  # RACE: an operator removed it
            if self._records[job].phase in BEGUN:
                begun[self.path(job)] = data
            seen(self._records[job])
        # Whoever wrote these was killed, or failed, perhaps before they were durable.
        if begun:
            files.overwrite_all(list(begun.items()))
            durable.sync_folder(self._root)
        return self

    def _read(self, job: str) -> bytes:
        """Read a record; return what counts in its journal.

        Raises Damaged, OSError, or one of NO_RECORD.
        """
        data = journal.read(self.path(job))
        document, end = journal.last(data, self.path(job))
        self._records[job], self._ends[job] = from_document(document), end
        return data[:end]

    def forget_damaged(self) -> list[str]:
        """Remove what says nothing; return which jobs that was."""
        jobs = sorted(self.damaged)
        for job in jobs:
            self._forget(job)
        self.damaged.clear()
        durable.sync_folder(self._root)
        return jobs

    def _forget(self, job: str) -> None:
        """Remove what stands in a journal's place."""
        if files.is_folder(self.path(job)):
            files.remove_tree(self.path(job))
        else:
            files.unlink(self.path(job))

    def __iter__(self) -> Iterator[Record]:
        if self._sorted is None:
            self._sorted = sorted(
                self._records.values(), key=lambda r: (r.times.get("dropped", ""), r.id)
            )
        return iter(self._sorted)

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, job: str) -> bool:
        return job in self._records

    def __getitem__(self, job: str) -> Record:
        return self._records[job]

    def path(self, job: str) -> str:
        """Return the path of a job's journal."""
        return os.path.join(self._root, job)

    # ---- writing -----------------------------------------------------------------------------

    def add_all(self, records: Iterable[Record]) -> None:
        """– to INTENT: begin the journals of new jobs, durably."""
        batch = list(records)
        self.save_all(batch)
        try:
            durable.sync_folder(self._root)
        except OSError:
            self._unload(record.id for record in batch)
            raise

    def save_all(
        self, records: Iterable[Record], papers: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        """Change records durably as one batch, each at once with its papers (J: name: content).

        What fails may have entered its phase all the same: then what stands on the disk counts
        here as well.
        """
        batch = {record.id: record for record in records}
        lines = {
            job: journal.line(record.document(), (papers or {}).get(job, {}))
            for job, record in batch.items()
        }
        try:
            self._shorten(batch)
            files.write_ends([(self.path(j), self._ends.get(j, 0), lines[j]) for j in batch])
        except OSError:
            self._reload(batch)
            raise
        for job, record in batch.items():
            self._records[job] = record
            self._ends[job] = self._ends.get(job, 0) + len(lines[job])
        self._sorted = None

    def _shorten(self, jobs: Iterable[str]) -> None:
        """Write journals anew that have grown long, durably."""
        for job in jobs:
            if self._ends.get(job, 0) > LONG:
                kept = journal.papers_in(self.path(job))
                text = journal.line(self._records[job].document(), kept)
                files.replace(self.path(job), text, suffix=journal.NEW)
                self._ends[job] = len(text)

    def _reload(self, jobs: Iterable[str]) -> None:
        """Read records again; one that cannot be read, or be made durable, is the next pass's."""
        for job in jobs:
            self._unload([job])
            try:
                # What a disk has failed to write once is not on it though a second sync is well.
                files.overwrite_all([(self.path(job), self._read(job))])
                durable.sync_folder(self._root)
            except (OSError, Damaged, *NO_RECORD):
                self._unload([job])

    def _unload(self, jobs: Iterable[str]) -> None:
        """Take jobs out of memory; what is on the disk of them is the next pass's."""
        self._sorted = None
        for job in jobs:
            self._records.pop(job, None)
            self._ends.pop(job, None)

    def remove_all(self, records: Iterable[Record]) -> None:
        """CLEANING to –: forget jobs."""
        for record in records:
            files.unlink(self.path(record.id))
            self._unload([record.id])
        durable.sync_folder(self._root)

    # ---- papers ------------------------------------------------------------------------------

    def document(self, job: str, name: str) -> dict[str, Any]:
        """Return a job's description or answer. Raises Damaged, and OSError for what may pass."""
        found = self._paper(job, name)
        if not isinstance(found, dict) or not HOLDS[name] <= found.keys():
            raise Damaged(self.path(job), f"its {name}")
        return found

    def script(self, job: str) -> bytes:
        """Return the rendered script. Raises Damaged, and OSError for what may pass."""
        return self._text(job, "script")

    def job_file(self, job: str) -> bytes:
        """Return the job file as it was read; b"" when that is not to be had.

        Raises OSError for what may pass.
        """
        try:
            return self._text(job, "job")
        except Damaged:
            return b""

    def _text(self, job: str, name: str) -> bytes:
        found = self._paper(job, name)
        if not isinstance(found, str):
            raise Damaged(self.path(job), f"its {name}")
        return files.to_bytes(found)

    def _paper(self, job: str, name: str) -> Any:
        try:
            return journal.paper(journal.read(self.path(job)), name, self.path(job))
        except OSError as error:
            if error.errno in files.PASSING:
                raise
            raise Damaged(self.path(job), error.strerror or "") from None
