"""Tidings: what the cluster's side says, checked and typed, once; and what it is told.

What is an answer's field but not needed to go on is read with a default, so that a cluster's side
of the release before is understood.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Hello:
    """What the cluster's side says about itself."""

    workspace: str
    made: bool
    """The workspace was made just now."""
    node: str
    free_bytes: int
    free_inodes: int
    python: str
    """Path of the interpreter that runs the far end."""


@dataclass(frozen=True)
class Census:
    """Every ticket of this service host, by folder; a ticket that moved meanwhile stands twice."""

    incoming: tuple[str, ...]
    ready: tuple[str, ...]
    running: tuple[str, ...]
    done: tuple[str, ...]
    others_ready: int
    """Tickets of other service hosts of this workspace."""
    others_running: int
    complete: bool
    """Every folder could be listed; only then a missing ticket means anything."""
    collected: Mapping[str, Collected]
    """What stands behind tickets in done, of those that were read along."""


@dataclass(frozen=True)
class Carried:
    """One input of a job on the cluster, in the order of its description."""

    bytes: int
    key: str | None = None
    """Its name in the store; None: it was sent into the job's folder directly."""


@dataclass(frozen=True)
class Load:
    """What `prepare` needs to know about a job."""

    job: str
    description: Mapping[str, Any]
    script: bytes
    inputs: tuple[Carried, ...]


@dataclass(frozen=True)
class Announced:
    """What the cluster's side has already of jobs that are to be staged."""

    missing: frozenset[str]
    """The keys that are not in the store."""
    published: frozenset[str] = frozenset()
    """The jobs that were published before; nothing of them is staged."""


@dataclass(frozen=True)
class Prepared:
    """Which jobs may be published now, and why others must be staged again."""

    jobs: frozenset[str]
    again: Mapping[str, str]


@dataclass(frozen=True)
class Collected:
    """The end of a job: what the runner and the pilots left behind."""

    result: Mapping[str, Any] | None
    """`result.json`; None where no attempt got as far."""
    pilots: tuple[Mapping[str, Any], ...]
    """Where it died of its pilots: `pilot.json`, with the runner's part over it, of the last."""
    error: str | None
    passing: bool = False
    """The result may be there, and cannot be read now."""


@dataclass(frozen=True)
class Pilots:
    """What the queuer saw and did."""

    pilots: tuple[Mapping[str, Any], ...]
    submitted: tuple[str, ...]
    reaped: tuple[str, ...]
    trouble: Mapping[str, Any] | None
    silent: str | None = None
    """What the batch system said where it was to list the pilots."""


@dataclass(frozen=True)
class Swept:
    """What a sweep removed from the workspace, and what it left."""

    trashed: tuple[str, ...]
    """Jobs that no record knows."""
    litter: tuple[str, ...]
    """Tickets of sessions that were cut off."""
    evicted: tuple[str, ...]
    """Files of the input store that no job uses."""
    unkept: tuple[str, ...]
    """Folders of `kept/`."""
    kept: int
    """Folders of this service host that are still in `kept/`."""
    trash: int
    """Entries of `trash/` that there was no time to delete."""
    store: Mapping[str, int] | None = None
    """The input store after that: files, bytes, in_use; None where the cluster's side is older."""


@dataclass(frozen=True)
class Submission:
    """What came of a pilot that an operator asked for."""

    pilot: Mapping[str, Any] | None
    """As in Pilots; None where every slot was held."""
    message: str | None
    """Why there is none, or what the batch system said; None when all is well."""


@dataclass(frozen=True)
class Tail:
    """The end of a running job's stream."""

    text: bytes
    size: int
    """Of the whole stream."""
    attempt: int
    """0: no attempt has begun."""


# ---- reading ---------------------------------------------------------------------------------


def census(a: Any) -> Census:
    """Read the answer to `census`."""
    return Census(
        incoming=texts(a["incoming"]),
        ready=texts(a["ready"]),
        running=texts(a["running"]),
        done=texts(a["done"]),
        others_ready=int(a["others"]["ready"]),
        others_running=int(a["others"]["running"]),
        complete=bool(a["complete"]),
        collected=collected(a.get("collected", {})),
    )


def prepared(a: Any) -> Prepared:
    """Read the answer to `prepare`."""
    again = {str(job): str(why) for job, why in a["again"].items()}
    return Prepared(frozenset(texts(a["prepared"])), again)


def collected(a: Any) -> dict[str, Collected]:
    """Read the answer to `collect`, by ticket."""
    return {
        str(ticket): Collected(
            result=found["result"],
            pilots=tuple(found["pilots"]),
            error=found["error"],
            passing=found.get("passing") is True,
        )
        for ticket, found in a.items()
    }


def pilots(a: Any) -> Pilots:
    """Read the answer to `pilots`."""
    return Pilots(
        pilots=tuple(a["pilots"]),
        submitted=texts(a["submitted"]),
        reaped=texts(a["reaped"]),
        trouble=a["trouble"],
        # A cluster's side of the release before does not tell.
        silent=a.get("silent"),
    )


def swept(a: Any) -> Swept:
    """Read the answer to `sweep`."""
    return Swept(
        trashed=texts(a["trashed"]),
        litter=texts(a["litter"]),
        evicted=texts(a["evicted"]),
        # A cluster's side of the release before does not tell.
        unkept=texts(a.get("unkept", [])),
        kept=int(a.get("kept", 0)),
        trash=int(a.get("trash", 0)),
        store=a.get("store"),
    )


def words(a: Any) -> dict[str, str]:
    """Read an answer of one word for each name."""
    return {str(name): str(word) for name, word in a.items()}


def purged(a: Any) -> frozenset[str]:
    """Read which jobs are gone from the cluster."""
    return frozenset(texts(a["purged"]))


def texts(values: Sequence[Any]) -> tuple[str, ...]:
    """Read a list of texts."""
    return tuple(str(value) for value in values)
