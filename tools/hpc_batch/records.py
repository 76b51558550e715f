"""All records of one state folder, in memory and in their journal.

A batch of jobs changes together: its lines are written to the journal, made durable at once, and
only then the change counts. What fails may have entered its phase all the same; so after a failure
the disk is believed, once it has said that what it holds is durable.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hpc_batch.journal import Damaged, Journal, Step
from hpc_batch.record import BEGUN, NO_RECORD, Record, from_document
from hpc_cluster import files

HOLDS = {
    "description": frozenset(("id", "script", "word", "layout", "inputs", "outputs")),
    "answer": frozenset(("status", "reason", "message", "times", "stdout", "stderr")),
}
"""What each document holds at least."""


class Records:
    """All records of one journal; none before `load`."""

    def __init__(self, path: Path) -> None:
        self._journal = Journal(str(path))
        self._records: dict[str, Record] = {}
        self.hurt: frozenset[str] = frozenset()
        """The jobs whose last line was damaged; "" is one that is not known."""
        self.damaged: dict[str, str] = {}
        """J: what is wrong with the record of a job that was taken; such a job stands still."""
        self._sorted: list[Record] | None = None
        """All records in the order of their drops, until one changes."""

    def newest(self) -> Iterator[Record]:
        """Yield records, the newest first, as far as the journal's end tells; none need be loaded.

        Raises OSError.
        """
        for document in self._journal.newest():
            with contextlib.suppress(*NO_RECORD):
                yield from_document(document)

    def load(self) -> Records:
        """Read all records, and return them.

        Raises Damaged when there is no journal in its place; OSError.
        """
        self._journal.read()
        since: list[int] = []
        for job, begin, document in self._journal.records():
            try:
                record = from_document(document)
            except NO_RECORD:
                self.damaged[job] = f"{self._journal.path} is damaged (the record of {job})"
                continue
            self._records[job] = record
            if record.phase in BEGUN:
                since.append(begin)
        # Whoever wrote these was killed, or failed, perhaps before they were durable.
        if since:
            self._journal.make_sure(min(since))
        self.hurt = frozenset(self._journal.hurt)
        self._journal.shorten()
        return self

    def miss(self, jobs: Iterable[str]) -> None:
        """Note jobs that were taken, and of which the journal says nothing."""
        for job in jobs:
            self.damaged[job] = f"{self._journal.path} is damaged (it says nothing of {job})"

    def forget_damaged(self) -> list[str]:
        """Remove what says nothing; return which jobs that was."""
        jobs = sorted(self.damaged)
        self._journal.append(dict.fromkeys(jobs))
        self.damaged.clear()
        return jobs

    def __iter__(self) -> Iterator[Record]:
        if self._sorted is None:
            self._sorted = sorted(
                self._records.values(), key=lambda r: (r.times.get("dropped", ""), r.id)
            )
        return iter(self._sorted)

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, job: object) -> bool:
        return job in self._records

    def __getitem__(self, job: str) -> Record:
        return self._records[job]

    # ---- writing -----------------------------------------------------------------------------

    def save_all(
        self, records: Iterable[Record], papers: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        """Change records durably as one batch, each at once with its papers (J: name: content).

        What fails may have entered its phase all the same: then what stands on the disk counts
        here as well. New records are added.
        """
        batch = {record.id: record for record in records}
        self._append({j: Step(r.document(), (papers or {}).get(j, {})) for j, r in batch.items()})
        self._records.update(batch)
        self._sorted = None

    def remove_all(self, records: Iterable[Record]) -> None:
        """CLEANING to –: forget jobs."""
        gone = [record.id for record in records]
        self._append(dict.fromkeys(gone))
        self._unload(gone)

    def _append(self, steps: Mapping[str, Step | None]) -> None:
        if not steps:
            return
        try:
            self._journal.append(steps)
        except OSError:
            self._reload(steps)
            raise

    def _reload(self, jobs: Iterable[str]) -> None:
        """Read records again; one that cannot be read, or be made durable, is the next pass's."""
        self._unload(jobs)
        with contextlib.suppress(OSError, Damaged):
            self._journal.make_sure()
            for job in jobs:
                with contextlib.suppress(Damaged, *NO_RECORD):
                    self._records[job] = from_document(self._journal.record(job))

    def _unload(self, jobs: Iterable[str]) -> None:
        """Take jobs out of memory; what is on the disk of them is the next pass's."""
        self._sorted = None
        for job in jobs:
            self._records.pop(job, None)

    # ---- papers ------------------------------------------------------------------------------

    def document(self, job: str, name: str) -> dict[str, Any]:
        """Return a job's description or answer. Raises Damaged, and OSError for what may pass."""
        found: dict[str, Any] = self._paper(job, name)
        if not _is_right(name, found):
            raise Damaged(self._journal.path, f"the {name} of {job}")
        return found

    def papers_of(self, jobs: Iterable[str], *names: str) -> Iterator[dict[str, Any]]:
        """Yield for each job those of its papers with these names that are as they should be.

        What is left out is missed by `document` or `job_file`. Raises as those do.
        """
        with self._readable():
            for papers in self._journal.papers_of(jobs, names):
                yield {name: found for name, found in papers.items() if _is_right(name, found)}

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
        if not _is_right(name, found):
            raise Damaged(self._journal.path, f"the {name} of {job}")
        return files.to_bytes(found)

    def _paper(self, job: str, name: str) -> Any:
        with self._readable():
            return self._journal.paper(job, name)

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        """Take a journal that cannot be read for a damaged one, where that does not pass."""
        try:
            yield
        except OSError as error:
            if error.errno in files.PASSING:
                raise
            raise Damaged(self._journal.path, error.strerror or "") from None


def _is_right(name: str, paper: Any) -> bool:
    """Tell whether a paper is what its name says."""
    if name in HOLDS:
        return isinstance(paper, dict) and HOLDS[name] <= paper.keys()
    return isinstance(paper, str)
