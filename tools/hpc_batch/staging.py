"""Staging: carrying jobs to the cluster, all of a pass as one batch.

One exchange announces the jobs and asks which stored inputs are missing, one stream carries what is
missing, one exchange has the cluster link everything into the jobs' folders, durably. Small files
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
from hpc_batch.record import Input, Record, Records
from hpc_batch.session import Carried, Load, Session

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


class Staging:
    """The staging of one session."""

    def __init__(
        self, session: Session, records: Records, lane: Lane, data: Callable[[], DataChannel]
    ) -> None:
        self._session, self._records, self._lane = session, records, lane
        self._data = data
        """Opens the channel for bulk at its first use."""
        self._keys: dict[Input, str] = {}

    def stage(self, batch: Iterable[Record]) -> Staged:
        """Bring jobs to the cluster, as far as they need no big file that is still travelling."""
        jobs, result = list(batch), Staged()
        sizes = {self._key(i): i.stamp[0] for job in jobs for i in job.inputs if _stored(i)}
        missing = self._session.stage([j.id for j in jobs], sizes)
        here = [job for job in jobs if not self._travels(job, missing, result)]
        failures = self._send(here, missing)
        loads = []
        for job in here:
            failure = self._failure_of(job, failures)
            if failure is None:
                loads.append(self._load(job))
            else:
                _note(job, failure, result)
        prepared = self._session.prepare(loads) if loads else None
        for job in here:
            if prepared is not None and job.id in prepared.jobs:
                result.ready.append(job)
            elif prepared is not None and job.id in prepared.again:
                result.stuck[job.id] = f"must be staged again: {prepared.again[job.id]}"
        return result

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
            if found:
                _note(job, found[("key", key)], result)
                return True
            self._lane.put(key, entry.stamp[0], _sender(key, entry))
        if wanted:
            total = sum(i.stamp[0] for i in wanted)
            result.waiting[job.id] = f"its inputs are on their way ({total} bytes)"
        return bool(wanted)

    def _send(self, jobs: Iterable[Record], missing: frozenset[str]) -> dict[Target, Failure]:
        """Send what is small, and what is stored and missing, each file once."""
        files: dict[Target, Outgoing] = {}
        for job in jobs:
            for number, entry in enumerate(job.inputs):
                target = self._target(job, number)
                if target[0] == "job" or target[1] in missing:
                    files[target] = Outgoing(target, entry.path, entry.stamp)
        return self._data().send(list(files.values())) if files else {}

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
            description=self._records.read_json(job.id, "description.json"),
            script=self._records.read_bytes(job.id, "script") or b"",
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


def _sender(key: str, entry: Input) -> Callable[[DataChannel], dict[Target, Failure]]:
    """Return the lane's work for one big input."""
    file = Outgoing(("key", key), entry.path, entry.stamp)
    return lambda channel: channel.send([file])
