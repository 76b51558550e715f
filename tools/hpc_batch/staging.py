"""Staging: carrying jobs to the cluster, all of a pass as one batch.

The jobs are announced, a stream carries their files, and the cluster links everything into the
jobs' folders, durably: three requests, one after the other without waiting. Only where inputs may
be in the store already, the answer to the first is awaited, which says what is missing. Small files
travel straight into their job's folder; larger ones into the store, once for all jobs that name
them; big ones in the lane, while the pass goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from hpc_batch.bulk import Failure, Outgoing, Target
from hpc_batch.data_channel import DataChannel
from hpc_batch.inputs import BIG_BYTES, SMALL_BYTES, key_of
from hpc_batch.lane import Lane
from hpc_batch.record import Input, Record
from hpc_batch.records import Records
from hpc_batch.session import Session
from hpc_batch.tidings import Carried, Load
from hpc_batch.travel import Travel

FOR_GOOD = frozenset(("changed", "ENOENT", "EACCES", "EISDIR", "ELOOP"))
"""Failures that the job's own user must mend; all others may pass."""


@dataclass
class Staged:
    """What came of a batch."""

    ready: list[Record] = field(default_factory=list)
    """Everything of them is on the cluster, durably."""
    waiting: dict[str, str] = field(default_factory=dict)
    """J: what it is waiting for; tried again by the next sweep."""
    stuck: dict[str, str] = field(default_factory=dict)
    """J: what failed and may pass, such as a full disk."""
    failed: dict[str, str] = field(default_factory=dict)
    """J: what failed for good."""
    published: list[Record] = field(default_factory=list)
    """They were published before, and the journal has lost that."""


class Staging:
    """The staging of one session."""

    def __init__(
        self, session: Session, records: Records, lane: Lane, data: Callable[[], DataChannel]
    ) -> None:
        self._session, self._records, self._lane = session, records, lane
        self._data = data
        """Returns what carries files."""
        self._keys: dict[Input, str] = {}
        self._stored = 0

    def stage(self, batch: Iterable[Record]) -> Staged:
        """Bring jobs to the cluster, as far as they need no big file that is still travelling."""
        jobs, result = list(batch), Staged()
        sizes = {self._key(i): i.stamp[0] for job in jobs for i in job.inputs if _stored(i)}
        announced = self._session.begin_stage([j.id for j in jobs], sizes)
        # Whether something is missing is only asked where it decides what to send.
        missing = announced.get().missing if sizes else frozenset()
        here = [job for job in jobs if not self._travels(job, missing, result)]
        files = self._files(here, missing)
        sent = self._data().begin_send(files) if files else None
        failures = sent.failures if sent else {}
        whole = [job for job in here if self._failure_of(job, failures) is None]
        prepared = self._session.begin_prepare([self._load(j) for j in whole]) if whole else None
        published = announced.get().published
        if sent:
            sent.wait()
            arrived = [f for f in files if f.to[0] == "key" and f.to not in failures]
            self._stored += sum(f.stamp[0] for f in arrived)
        done = prepared.get() if prepared else None
        for job in here:
            failure = self._failure_of(job, failures)
            if job.id in published:
                result.published.append(job)
            elif failure is not None:
                _note(job, failure, result)
            elif done is not None and job.id in done.jobs:
                result.ready.append(job)
            elif done is not None and job.id in done.again:
                result.stuck[job.id] = f"must be staged again: {done.again[job.id]}"
        return result

    def take_stored(self) -> int:
        """Return how many bytes were sent into the store since this was asked before."""
        stored, self._stored = self._stored, 0
        return stored

    def _key(self, entry: Input) -> str:
        """Return the input's key, the same one for the whole session."""
        if entry not in self._keys:
            self._keys[entry] = key_of(self._session.instance, entry)
        return self._keys[entry]

    def _travels(self, job: Record, missing: frozenset[str], result: Staged) -> bool:
        """Put what is big into the lane, and tell whether the job must wait for it."""
        wanted = [i for i in job.inputs if i.stamp[0] >= BIG_BYTES and self._key(i) in missing]
        for entry in wanted:
            key = self._key(entry)
            found = self._lane.take(key)
            if found == {}:
                self._stored += entry.stamp[0]
            if found:
                _note(job, found[("key", key)], result)
                return True
            self._lane.put(key, Travel("in", entry.path, entry.stamp[0]), _sender(key, entry))
        if wanted:
            total = sum(i.stamp[0] for i in wanted)
            result.waiting[job.id] = f"its inputs are on their way ({total} bytes)"
        return bool(wanted)

    def _files(self, jobs: Iterable[Record], missing: frozenset[str]) -> list[Outgoing]:
        """Return what is small, and what is stored and missing, each file once."""
        files: dict[Target, Outgoing] = {}
        for job in jobs:
            for number, entry in enumerate(job.inputs):
                target = self._target(job, number)
                if target[0] == "job" or target[1] in missing:
                    files[target] = Outgoing(target, entry.path, entry.stamp)
        return list(files.values())

    def _target(self, job: Record, number: int) -> Target:
        entry = job.inputs[number]
        if _stored(entry):
            return ("key", self._key(entry))
        return ("job", job.id, number)

    def _failure_of(self, job: Record, failures: Mapping[Target, Failure]) -> Failure | None:
        for number in range(len(job.inputs)):
            failure = failures.get(self._target(job, number))
            if failure is not None:
                return failure
        return None

    def _load(self, job: Record) -> Load:
        return Load(
            job=job.id,
            description=self._records.document(job.id, "description"),
            script=self._records.script(job.id),
            inputs=tuple(
                Carried(i.stamp[0], self._key(i) if _stored(i) else None) for i in job.inputs
            ),
        )


def _note(job: Record, failure: Failure, result: Staged) -> None:
    """Sort a failure by who must act: the user, nobody, or time."""
    if failure.here and failure.kind in FOR_GOOD:
        result.failed[job.id] = failure.message
    elif failure.kind in ("busy", "damaged"):
        result.waiting[job.id] = failure.message
    else:
        result.stuck[job.id] = f"{failure.message} ({failure.kind})"


def _stored(entry: Input) -> bool:
    return entry.stamp[0] >= SMALL_BYTES


def _sender(key: str, entry: Input) -> Callable[[DataChannel, Travel], dict[Target, Failure]]:
    """Return the lane's work for one big input."""
    file = Outgoing(("key", key), entry.path, entry.stamp)
    return lambda channel, travel: channel.send([file], travel.move, travel.skip)
