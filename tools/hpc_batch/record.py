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
"""

from __future__ import annotations

import json
import os
import secrets
import time
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Iterable, Iterator, Literal, Mapping

from hpc_cluster import PROTOCOL, files

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
    need_s: int = 0
    """So much walltime it may need; 0: as much as there is."""
    since: str = ""
    """When the phase was entered, UTC."""
    message: str | None = None
    """What it is waiting for, when that is not obvious."""
    stuck_since: str | None = None
    """Since when the same step has failed for a reason that may pass (a full disk)."""
    missing: int = 0
    """Complete censuses in a row that listed no ticket of this published job."""
    missing_since: str | None = None
    times: Mapping[str, str] = field(default_factory=dict)
    """dropped, accepted, staged, started, ended, returned: UTC."""

    def enter(self, phase: Phase, **changes: Any) -> Record:
        """Return this record in another phase, its troubles forgotten."""
        fresh: dict[str, Any] = {"message": None, "stuck_since": None, "since": now()}
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
    return f"{instance}-{int(time.time() * 1000):011x}-{secrets.token_hex(8)}"


class Records:
    """All records of one state folder, in memory and on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._records: dict[str, Record] = {}
        files.make_folder(str(folder))
        for name in files.names(str(folder)):
            record = self._load(name)
            if record is not None:
                self._records[name] = record

    def _load(self, job: str) -> Record | None:
        try:
            data = files.read_json(str(self.path(job, "record.json")))
        except FileNotFoundError:
            # Killed before the intent was durable: nothing happened.
            files.remove_tree(str(self.folder / job))
            return None
        data.pop("protocol")
        data["inputs"] = tuple(
            Input(i["key"], i["path"], (i["stamp"][0], i["stamp"][1], i["stamp"][2], i["stamp"][3]))
            for i in data["inputs"]
        )
        data["targets"] = tuple(Target(**t) for t in data["targets"])
        return Record(**data)

    def __iter__(self) -> Iterator[Record]:
        return iter(
            sorted(self._records.values(), key=lambda r: (r.times.get("dropped", ""), r.id))
        )

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, job: str) -> bool:
        return job in self._records

    def __getitem__(self, job: str) -> Record:
        return self._records[job]

    def path(self, job: str, name: str) -> Path:
        """Return the path of a file that stands beside the job's record."""
        return self.folder / job / name

    def add_all(self, records: Iterable[Record]) -> None:
        """– to INTENT: make the folders of new jobs and their records, durably."""
        new = list(records)
        for record in new:
            files.make_folder(str(self.folder / record.id))
        self.save_all(new)
        files.sync_folder(str(self.folder))

    def save_all(self, records: Iterable[Record], beside: Mapping[str, Any] | None = None) -> None:
        """Replace records durably as one batch.

        `beside` maps "J/NAME" to bytes, or to a value that is written as JSON: files that must be
        durable before the new phases are.
        """
        batch = list(records)
        if beside:
            files.replace_all(
                [
                    (str(self.folder / name), v if isinstance(v, bytes) else files.to_json(v))
                    for name, v in beside.items()
                ]
            )
        files.replace_all(
            [
                (
                    str(self.path(r.id, "record.json")),
                    files.to_json({**asdict(r), "protocol": PROTOCOL}),
                )
                for r in batch
            ]
        )
        for record in batch:
            self._records[record.id] = record

    def remove_all(self, records: Iterable[Record]) -> None:
        """CLEANING to –: forget jobs; the record goes first, then what stands beside it."""
        for record in records:
            files.unlink(str(self.path(record.id, "record.json")))
            files.remove_tree(str(self.folder / record.id))
            self._records.pop(record.id, None)
        files.sync_folder(str(self.folder))

    def read_json(self, job: str, name: str) -> Any:
        """Return a JSON document beside a record; None when it is not there."""
        try:
            return files.read_json(str(self.path(job, name)))
        except FileNotFoundError:
            return None

    def read_bytes(self, job: str, name: str) -> bytes | None:
        """Return a file beside a record; None when it is not there."""
        try:
            return files.read_bytes(str(self.path(job, name)))
        except FileNotFoundError:
            return None


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
