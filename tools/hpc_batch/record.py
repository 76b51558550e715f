"""A record: what the service host knows of one job, in the last line of its journal.

The record's phase is the job's state as long as no ticket on the cluster says more. A phase is
written before the step that it names, or after the step that made it true, and always by one line
of the `journal`. Phases change for whole batches of jobs together.

    phase         written    means
    INTENT        before     a drop was chosen; it is ours once J.drop exists
    ACCEPTED      after      the drop is ours; not yet read
    STAGING       after      read and checked; description and script are in the journal
    PUBLISHING    before     everything is on the cluster; `session` names the ticket to publish
    PUBLISHED     after      the ticket decides from here on
    PLACING       before     outputs are here, verified; `targets` says what stood at their paths
    UNPLACING     before     placing failed for good; what stood there comes back
    ANSWERING     before     the answer is decided, and in the journal
    CLEANING      after      answered; only litter is left

Where a paper of the journal says nothing, `mending` takes the job back to a phase that writes it.
"""

from __future__ import annotations

import os
import time
from dataclasses import MISSING, dataclass, field, fields
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any, Literal, Mapping, get_args

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


PHASES: frozenset[Phase] = frozenset(get_args(Phase))

BEGUN: frozenset[Phase] = frozenset(("INTENT", "PUBLISHING", "PLACING", "UNPLACING", "ANSWERING"))
"""Phases that are written before the step that they name."""


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
        """Return the record as it stands in the journal: without what is as in a new one."""
        # What is equal and another object is written, too; that is no matter, and faster.
        found = {k: v for k, v in vars(self).items() if v is not _USUAL[k]}
        found["protocol"] = PROTOCOL
        if self.inputs:
            found["inputs"] = [vars(entry) for entry in self.inputs]
        if self.targets:
            found["targets"] = [vars(target) for target in self.targets]
        return found

    def enter(self, phase: Phase, **changes: Any) -> Record:
        """Return this record in another phase, its troubles forgotten."""
        fresh = {"message": None, "since": now(), "stuck_since": None, "stuck_at": None}
        return self.but(**{"phase": phase, **fresh, **changes})

    def but(self, **changes: Any) -> Record:
        """Return this record, changed; for thousands at once: `replace` takes many times as long.

        Raises TypeError for what is no field.
        """
        if not changes.keys() <= FIELDS:
            raise TypeError(f"no field of a record: {', '.join(sorted(changes.keys() - FIELDS))}")
        changed = object.__new__(Record)
        vars(changed).update(vars(self), **changes)
        return changed


FIELDS = frozenset(f.name for f in fields(Record))

UNSAID = {f.name: f.default for f in fields(Record) if f.default is not MISSING}
"""What a field holds that a document does not name."""

_USUAL = {**dict.fromkeys(FIELDS, MISSING), **UNSAID}


def now() -> str:
    """Return the time, UTC, as it stands in every file of ours."""
    return stamp(time.time())


def stamp(seconds: float) -> str:
    """Return a Unix time as ISO 8601 UTC with whole seconds."""
    return _stamp(int(seconds // 1))


@lru_cache(maxsize=64)
def _stamp(second: int) -> str:
    """Return the stamp of a second, in which a batch of jobs asks many times."""
    return datetime.fromtimestamp(second, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_since(text: str) -> float:
    """Return how long ago a time of ours was, by this host's clock."""
    then = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    return time.time() - then.timestamp()


def new_id(instance: str) -> str:
    """Return a fresh J."""
    return f"{instance}-{int(time.time() * 1000):011x}-{os.urandom(8).hex()}"


NO_RECORD = (KeyError, TypeError, ValueError, AttributeError, IndexError)
"""What is raised by a document that is no record."""


def from_document(document: Mapping[str, Any]) -> Record:
    """Return the record in a JSON document. Raises one of `NO_RECORD` for any other."""
    data = dict(document)
    data.pop("protocol")
    data["inputs"] = tuple(
        Input(i["key"], i["path"], (i["stamp"][0], i["stamp"][1], i["stamp"][2], i["stamp"][3]))
        for i in data.get("inputs", ())
    )
    data["targets"] = tuple(Target(**t) for t in data.get("targets", ()))
    found = Record(**data)
    if found.phase not in PHASES:
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
    return files.to_json(line)


def base_name(path: str | os.PathLike[str]) -> str:
    """Return the base name of a local path, as it travels to the cluster."""
    return files.from_bytes(os.path.basename(os.fsencode(path)))
