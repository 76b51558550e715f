"""A record: what the service host knows of one job, in `state/jobs/J/record.json`.

The record's phase is the job's state as long as no ticket on the cluster says more. A phase is
written before the step that it names (bold in the table), or after the step that made it true, and
always by replacing the whole file atomically. Phases change for whole batches of jobs together.

    phase         written    means
    INTENT        before     a drop was chosen; it is ours once J.drop exists
    ACCEPTED      after      the drop is ours; not yet read
    STAGING       after      read and checked; description and script stand beside the record
    PUBLISHING    before     everything is on the cluster; `session` names the ticket to publish
    PUBLISHED     after      the ticket decides from here on
    PLACING       before     outputs are here, verified; `targets` says what stood at their paths
    UNPLACING     before     placing failed for good; what stood there comes back
    ANSWERING     before     the answer is decided (`answer.json` beside the record)
    CLEANING      after      answered; only litter is left

Where a file beside a record says nothing, `mending` takes the job back to a phase that writes it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, Literal, Mapping, get_args

from hpc_cluster import PROTOCOL, durable, files

Phase = Literal[
    "INTENT",
    "ACCEPTED",
    "STAGING",
    "PUBLISHING",
    "PUBLISHED",
    "PLACING",
    "UNPLACING",
    "ANSWERING",
    "CLEANING",
]


@dataclass(frozen=True)
class Input:
    """A file that travels to the cluster."""

    key: str
    """The name in the template."""
    path: str
    """Absolute local path (file system encoding with surrogate escapes)."""
    stamp: tuple[int, int, int, int]
    """Size in bytes, mtime and ctime in ns, inode: as it was when the job was taken."""


@dataclass(frozen=True)
class Target:
    """Where an output goes."""

    key: str
    """The name in the template."""
    path: str
    """Absolute local path of the destination."""
    existed: bool = False
    """Whether a file stood there when placing began."""
    inode: int = 0
    """Inode of the output that is placed there: only that one is ever taken away again."""


@dataclass(frozen=True)
class Record:
    """One job, as the service host knows it."""

    id: str
    """J."""
    phase: Phase
    name: str
    """Base name of the drop, `thing.job` (file system encoding with surrogate escapes)."""
    dropbox: str
    host: str
    workspace: str
    """Where it came from and where it runs; another configuration must not touch it."""
    script: str = ""
    inputs: tuple[Input, ...] = ()
    targets: tuple[Target, ...] = ()
    remote: bool = False
    """Something of it may be on the cluster, to be purged at the end."""
    session: str | None = None
    """S whose `incoming/J.S` is the ticket to publish; set with PUBLISHING."""
    ticket: str | None = None
    """The done ticket whose results are being placed or answered."""
    attempt: int = 0
    """The attempt whose outputs are placed."""
    layout: str = ""
    """`flat` or `split`, as in the description; known once that is written."""
    need_s: int = 0
    """So much walltime it may need; 0: as much as there is."""
    since: str = ""
    """When the phase was entered, UTC."""
    message: str | None = None
    """What it is waiting for, when that is not obvious."""
    stuck_since: str | None = None
    """Since when the same step has failed for a reason that may pass (a full disk); for people."""
    stuck_at: float | None = None
    """The same as a count of `elapsed`."""
    missing: int = 0
    """Complete censuses in a row that listed no ticket of this published job."""
    missing_since: str | None = None
    missing_at: float | None = None
    doubts: int = 0
    """Looks that did not find on the cluster what belongs to its ticket in done."""
    doubted_since: str | None = None
    doubted_at: float | None = None
    placed: bool = False
    """All its outputs stand at their destinations."""
    times: Mapping[str, str] = field(default_factory=dict)
    """dropped, accepted, staged, started, ended, returned: UTC."""

    def document(self) -> dict[str, Any]:
        """Return the record as it stands in its file."""
        return {
            **vars(self),
            "inputs": [vars(entry) for entry in self.inputs],
            "targets": [vars(target) for target in self.targets],
            "times": dict(self.times),
            "protocol": PROTOCOL,
        }

    def enter(self, phase: Phase, **changes: Any) -> Record:
        """Return this record in another phase, its troubles forgotten."""
        fresh: dict[str, Any] = {"message": None, "since": now()}
        fresh.update(stuck_since=None, stuck_at=None)
        return replace(self, phase=phase, **{**fresh, **changes})


def now() -> str:
    """Return the time, UTC, as it stands in every file of ours."""
    return stamp(time.time())


def stamp(seconds: float) -> str:
    """Return a Unix time as ISO 8601 UTC with whole seconds."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_since(text: str) -> float:
    """Return how long ago a time of ours was, by this host's clock."""
    then = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    return time.time() - then.timestamp()


def new_id(instance: str) -> str:
    """Return a fresh J."""
    return f"{instance}-{int(time.time() * 1000):011x}-{os.urandom(8).hex()}"


NO_RECORD = (KeyError, TypeError, ValueError, AttributeError, IndexError)
"""What is raised by a document that is no record."""


class Damaged(Exception):
    """A file beside a record is missing, cut or overwritten."""

    def __init__(self, path: str, why: str = "") -> None:
        super().__init__(f"{path} is damaged" + (f" ({why})" if why else ""))
        self.path = path


BESIDE = {
    "description.json": frozenset(("id", "script", "word", "layout", "inputs", "outputs")),
    "answer.json": frozenset(("status", "reason", "message", "times", "stdout", "stderr")),
    "unplaced.json": frozenset(("status", "reason", "message", "times", "stdout", "stderr")),
}
"""Documents beside a record, and what each holds at least."""


class Records:
    """All records of one state folder, in memory and on disk; none before `load`."""

    def __init__(self, folder: Path) -> None:
        self._root = str(folder)
        self._records: dict[str, Record] = {}
        self.damaged: dict[str, str] = {}
        """J: what is wrong with a record that says nothing; such a job stands still."""
        self._sorted: list[Record] | None = None
        """All records in the order of their drops, until one changes."""

    def load(self, seen: Callable[[Record], None] = lambda record: None) -> Records:
        """Read all records, and return them; `seen` is told of each as it is read."""
        files.make_folder(self._root)
        for name in files.names(self._root):
            record = self._load(name)
            if record is not None:
                self._records[name] = record
                seen(record)
        return self

    def _load(self, job: str) -> Record | None:
        try:
            data = files.twice(files.read_json, self.path(job, "record.json"))
        except FileNotFoundError:
            # Killed before the intent was durable: nothing happened.
            files.remove_tree(self.path(job))
            return None
        except ValueError as error:
            self.damaged[job] = f"it is no JSON: {error}"
            return None
        try:
            return _record(data)
        except NO_RECORD as error:
            self.damaged[job] = f"it is no record: {type(error).__name__}: {error}"
            return None

    def forget_damaged(self) -> list[str]:
        """Remove what says nothing; return which jobs that was."""
        jobs = sorted(self.damaged)
        for job in jobs:
            files.unlink(self.path(job, "record.json"))
            files.remove_tree(self.path(job))
        self.damaged.clear()
        durable.sync_folder(self._root)
        return jobs

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

    def path(self, job: str, *names: str) -> str:
        """Return the path of a job's folder, or of a file in it."""
        return os.path.join(self._root, job, *names)

    def _content(self, name: str, value: Any) -> tuple[str, bytes]:
        """Return the path of "J/NAME", and a value as it stands there."""
        data = value if isinstance(value, bytes) else files.to_json(value)
        return os.path.join(self._root, name), data

    def add_all(self, records: Iterable[Record]) -> None:
        """– to INTENT: make the folders of new jobs and their records, durably."""
        new = list(records)
        for record in new:
            files.make_folder(self.path(record.id))
        self.save_all(new)
        durable.sync_folder(self._root)

    def save_all(self, records: Iterable[Record], beside: Mapping[str, Any] | None = None) -> None:
        """Replace records durably as one batch.

        `beside` maps "J/NAME" to bytes, or to a value that is written as JSON: files that must be
        durable before the new phases are. What fails may have entered its phase all the same: then
        what stands on the disk counts here as well.
        """
        batch = list(records)
        if beside:
            files.replace_all([self._content(name, value) for name, value in beside.items()])
        try:
            files.replace_all(
                [(self.path(r.id, "record.json"), files.to_json(r.document())) for r in batch]
            )
        except OSError:
            for record in batch:
                self._reload(record.id)
            raise
        for record in batch:
            self._records[record.id] = record
        self._sorted = None

    def _reload(self, job: str) -> None:
        """Read a record again; one that cannot be read is left to the next pass."""
        self._sorted = None
        self._records.pop(job, None)
        with contextlib.suppress(OSError, *NO_RECORD):
            self._records[job] = _record(files.read_json(self.path(job, "record.json")))

    def furnish(self, beside: Mapping[str, Any]) -> None:
        """Write files beside records whose phases do not count on them yet, durably as one batch.

        `beside` as in `save_all`. A kill may leave some of them, or parts: they are written again.
        """
        files.write_all_new([self._content(name, value) for name, value in beside.items()])

    def remove_all(self, records: Iterable[Record]) -> None:
        """CLEANING to –: forget jobs; the record goes first, then what stands beside it."""
        for record in records:
            files.unlink(self.path(record.id, "record.json"))
            for name in files.names(self.path(record.id)):
                with contextlib.suppress(IsADirectoryError, PermissionError):
                    files.unlink(self.path(record.id, name))
            if not files.remove_folder(self.path(record.id)):
                files.remove_tree(self.path(record.id))
            self._records.pop(record.id, None)
        self._sorted = None
        durable.sync_folder(self._root)

    def read_json(self, job: str, name: str) -> dict[str, Any]:
        """Return a document beside a record. Raises Damaged, and OSError for what may pass."""
        path = self.path(job, name)
        try:
            found = files.read_json(path)
        except (ValueError, RecursionError):
            raise Damaged(path) from None
        except OSError as error:
            if error.errno in files.PASSING:
                raise
            raise Damaged(path, error.strerror or "") from None
        if not isinstance(found, dict) or not BESIDE[name] <= found.keys():
            raise Damaged(path)
        return found

    def read_script(self, job: str) -> bytes:
        """Return the rendered script. Raises Damaged, and OSError for what may pass."""
        script = self.read_bytes(job, "script")
        if not script:
            raise Damaged(self.path(job, "script"))
        return script

    def read_bytes(self, job: str, name: str) -> bytes | None:
        """Return a file beside a record; None when it is not there."""
        try:
            return files.read_bytes(self.path(job, name))
        except FileNotFoundError:
            return None


def _record(data: dict[str, Any]) -> Record:
    """Return the record in a JSON document. Raises whatever a document of another kind raises."""
    data.pop("protocol")
    data["inputs"] = tuple(
        Input(i["key"], i["path"], (i["stamp"][0], i["stamp"][1], i["stamp"][2], i["stamp"][3]))
        for i in data["inputs"]
    )
    data["targets"] = tuple(Target(**t) for t in data["targets"])
    found = Record(**data)
    if found.phase not in get_args(Phase):
        raise ValueError(f"no phase: {found.phase!r}")
    return found


def history_line(record: Record, node: Mapping[str, Any]) -> bytes:
    """Return the line of `history.jsonl` that remembers an answered job."""
    pilot = node.get("pilot") or {}
    line = {
        "id": record.id,
        "name": record.name,
        "script": record.script,
        "attempts": node.get("attempts", 0),
        "pilot": pilot.get("id"),
        "native_id": pilot.get("native_id"),
        "answered": now(),
        **{k: node.get(k) for k in ("status", "reason", "rc", "message", "times", "node")},
    }
    return (json.dumps(line, sort_keys=True) + "\n").encode("ascii")


def base_name(path: str | os.PathLike[str]) -> str:
    """Return the base name of a local path, as it travels to the cluster."""
    return files.from_bytes(os.path.basename(os.fsencode(path)))
