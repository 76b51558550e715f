"""One status model: what a service host knows, read from files alone.

Each pass leaves `state/status.json` (jobs in flight, pilots, the cluster, trouble) and adds a line
per answer to `state/history.jsonl`. The dropbox itself shows the drops that no pass has taken yet,
the `.submitted` copies and the answers. `read` lays these over each other: the state folder first,
the dropbox for what it does not say, or for everything where the state folder is not ours to read
(a user of another account sees the dropbox only).

Nothing here locks, writes or asks the cluster, so it may run at any time beside a pass.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

from hpc_batch import jobfile
from hpc_batch.journal import Damaged, Journal
from hpc_cluster import files

IN_FLIGHT = ("waiting", "accepted", "staging", "staged", "running", "returning")
"""States of a job that has no answer yet, in their order; `waiting` is a drop not yet taken."""

ANSWERED = ("ok", "error")
"""States of a job that has its answer."""

PHASES = {
    "ACCEPTED": "accepted",
    "STAGING": "staging",
    "PUBLISHING": "staging",
    "PUBLISHED": "staged",
    "PLACING": "returning",
    "UNPLACING": "returning",
    "ANSWERING": "returning",
}
"""What a record's phase is called here; with INTENT the drop is still in the dropbox, with CLEANING
the answer is."""

STALE = timedelta(minutes=15)
"""A status older than this means that no passes run; cron lines say every few minutes."""


@dataclass(frozen=True)
class Seen:
    """One job as it can be seen from here; fields that nothing told are None."""

    name: str
    """The drop's name with `.job`; bytes that are not UTF-8 as surrogate escapes."""
    state: str
    """One of IN_FLIGHT or ANSWERED."""
    id: str | None = None
    script: str | None = None
    since: str | None = None
    """When this state began: ISO, UTC."""
    reason: str | None = None
    rc: int | None = None
    message: str | None = None
    attempts: int | None = None
    node: str | None = None
    pilot: str | None = None
    native_id: str | None = None
    cancel: bool = False
    """Somebody asked for its cancellation."""
    stuck: Mapping[str, Any] | None = None
    """since, why, next, until, reason (`stuck.Stuck`), where it does not move on by itself."""
    times: Mapping[str, str | None] = field(default_factory=dict)
    """dropped, accepted, staged, started, ended, returned."""

    @property
    def answered(self) -> bool:
        """Tell whether the job has its answer."""
        return self.state in ANSWERED

    @property
    def short_id(self) -> str:
        """Return the first characters of the id's random part: enough for a person."""
        return self.id.rpartition("-")[2][:8] if self.id else ""

    def document(self) -> dict[str, Any]:
        """Return the job as `--json` prints it."""
        return {
            "name": self.name,
            "id": self.id,
            "state": self.state,
            "script": self.script,
            "since": self.since,
            "reason": self.reason,
            "rc": self.rc,
            "message": self.message,
            "attempts": self.attempts,
            "node": self.node,
            "pilot": self.pilot,
            "native_id": self.native_id,
            "cancel": self.cancel,
            "stuck": None if self.stuck is None else dict(self.stuck),
            "times": dict(self.times),
        }


@dataclass(frozen=True)
class Status:
    """Everything that can be seen at one moment."""

    dropbox: Path
    service: Mapping[str, Any] | None
    """The document of `status.json`; None when there was no pass yet or it is not ours to read."""
    jobs: tuple[Seen, ...]
    """All jobs, the one that changed last at the end."""
    hidden: str | None = None
    """Why the state folder could not be read, in words."""
    failed: Mapping[str, Any] | None = None
    """The last pass could not work: at, since, code, message; None when it could."""

    @property
    def in_flight(self) -> tuple[Seen, ...]:
        """Return the jobs without an answer."""
        return tuple(job for job in self.jobs if not job.answered)

    def age(self, now: datetime) -> timedelta | None:
        """Return how long ago the last pass wrote its status."""
        written = moment(self.service.get("written")) if self.service else None
        return now - written if written else None


def moment(text: object) -> datetime | None:
    """Return an ISO time as a datetime in UTC; None for what is none."""
    if not isinstance(text, str):
        return None
    try:
        value = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return value if value.tzinfo else value.replace(tzinfo=timezone.utc)


def next_try(text: str, now: datetime) -> str:
    """Return when something that failed is tried again, in words."""
    when = moment(text)
    if when is not None and when <= now:
        return "the next pass tries again"
    return f"the next try is at {text}"


def iso(seconds: float) -> str:
    """Return a time in seconds since 1970 as ISO, UTC, in milliseconds."""
    when = datetime.fromtimestamp(seconds, timezone.utc)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read(dropbox: Path, state: Path | None, since: datetime | None = None) -> Status:
    """Return what can be seen now; answers older than `since` are left out.

    `state` is the service's private folder, None for who does not know it. Raises OSError when the
    dropbox cannot be listed.
    """
    names = sorted(files.from_bytes(os.fsencode(name)) for name in os.listdir(dropbox))
    # Jobs move from the dropbox to a record to the history: looked for in that order, each is seen.
    service: Mapping[str, Any] | None = None
    flight: list[Seen] = []
    answered: list[Seen] = []
    hidden, failed = None, None
    if state is not None:
        try:
            service = _service(state)
            failed = _failed(state, service)
            flight = list(_in_flight(service))
            flight += _recorded(state, {job.id for job in flight})
            answered = list(history(state))
        except PermissionError:
            hidden = f"{state} is private to the account that runs the passes"
    told = {job.id for job in answered}, {job.name for job in answered}
    shown = {job.name for job in flight}
    flight += _submitted(dropbox, [name for name in names if _of_submitted(name) not in shown])
    seen = [
        *(job for job in answered if _recent(job.since, since)),
        *_answers(dropbox, [name for name in names if _of_answer(name) not in told[1]], since),
        *(job for job in flight if job.id not in told[0]),
        *_waiting(dropbox, names),
    ]
    seen.sort(key=lambda job: moment(job.since) or _BEGINNING)
    seen = [_damaged(job, service) for job in seen]
    return Status(dropbox, service, tuple(seen), hidden, failed)


def history(state: Path) -> Iterator[Seen]:
    """Yield the answered jobs of `history.jsonl`, oldest first, each once."""
    entries: dict[str, dict[str, Any]] = {}
    try:
        with open(state / "history.jsonl", "rb") as lines:
            for line in lines:
                try:
                    entry = json.loads(line)
                    entries[entry["id"]] = entry
                except (ValueError, KeyError, TypeError):
                    continue  # a line that a full disk cut; the answer itself lies in the dropbox
    except FileNotFoundError:
        return
    for entry in entries.values():
        yield Seen(
            name=entry["name"],
            state="ok" if entry.get("status") == "ok" else "error",
            id=entry["id"],
            script=entry.get("script"),
            since=entry.get("answered"),
            reason=entry.get("reason"),
            rc=entry.get("rc"),
            message=entry.get("message"),
            attempts=entry.get("attempts"),
            node=entry.get("node"),
            pilot=entry.get("pilot"),
            native_id=entry.get("native_id"),
            times=entry.get("times") or {},
        )


def read_answer(path: Path) -> dict[str, Any] | None:
    """Return the content of an answer or `.submitted` copy; None when gone or no mapping."""
    try:
        return jobfile.read_answer(files.read_bytes(files.to_bytes(str(path))))
    except (OSError, ValueError):
        return None  # RACE: its reader has removed it.


_BEGINNING = datetime.min.replace(tzinfo=timezone.utc)


def _service(state: Path) -> Mapping[str, Any] | None:
    """Return the last pass's document; whether the service is paused is as of now."""
    document = _document(state / "status.json")
    if document is None:
        return None
    paused = _document(state / "paused")
    until = moment((paused or {}).get("until"))
    over = until is not None and until <= datetime.now(timezone.utc)
    return {**document, "paused": None if over else paused}


def _damaged(job: Seen, service: Mapping[str, Any] | None) -> Seen:
    """Return a job whose record cannot be read as the stuck one that it is."""
    for trouble in (service or {}).get("trouble", []):
        if trouble.get("what") == f"record {job.id}" and not job.answered:
            stuck = {"since": trouble.get("since"), "why": trouble.get("message"), "until": None}
            return replace(job, stuck={**stuck, "reason": "damaged", "next": "it waits for that"})
    return job


def _failed(state: Path, service: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return why the last pass could not work; None when a later one could."""
    failed = _document(state / "failed.json") or {}
    at, written = moment(failed.get("at")), moment((service or {}).get("written"))
    return failed if at is not None and (written is None or written <= at) else None


def _document(path: Path) -> Mapping[str, Any] | None:
    try:
        document = files.read_json(str(path))
    except (FileNotFoundError, ValueError):
        return None  # RACE: a power cut may leave a block half written.
    return document if isinstance(document, Mapping) else None


def _in_flight(service: Mapping[str, Any] | None) -> Iterator[Seen]:
    for entry in (service or {}).get("jobs", []):
        yield Seen(
            name=entry["name"],
            state=entry["state"],
            id=entry.get("id"),
            script=entry.get("script"),
            since=entry.get("since"),
            message=entry.get("message"),
            attempts=entry.get("attempt"),
            node=entry.get("node"),
            cancel=bool(entry.get("cancel")),
            stuck=entry.get("stuck"),
            times=entry.get("times") or {},
        )


def _recorded(state: Path, known: set[str | None]) -> Iterator[Seen]:
    """Yield what records tell of jobs that were taken after the status was written."""
    journal = Journal(str(state / "journal"))
    with contextlib.suppress(OSError, Damaged):  # it may not be ours to read
        journal.read()
    for job in journal.jobs():
        if job in known:
            continue
        try:
            record = journal.record(job)
        except (OSError, Damaged):
            continue  # RACE: the journal was written anew meanwhile.
        shown = PHASES.get(str(record.get("phase")))
        if shown is not None:
            yield Seen(
                name=record["name"],
                state=shown,
                id=job,
                script=record.get("script") or None,
                since=record.get("since"),
                message=record.get("message"),
                times=record.get("times") or {},
            )


def _submitted(dropbox: Path, names: Sequence[str]) -> Iterator[Seen]:
    """Yield what the `.submitted` copies tell, for jobs that the status does not name yet."""
    for name in names:
        drop = _of_submitted(name)
        content = read_answer(dropbox / name) if drop else None
        if drop is None or content is None:
            continue
        node = content.get("hpc")
        node = node if isinstance(node, Mapping) else {}
        yield Seen(
            name=drop,
            state=node.get("state", "accepted"),
            id=node.get("id"),
            script=content.get("script"),
            since=_text(node.get("since")) or _changed(dropbox / name),
            cancel=f"{drop}.cancel" in names,
        )


def _answers(dropbox: Path, names: Sequence[str], since: datetime | None) -> Iterator[Seen]:
    """Yield what the answers themselves tell, for jobs that the history does not name."""
    for name in names:
        drop = _of_answer(name)
        written = _changed(dropbox / name)
        if drop is None or not _recent(written, since):
            continue
        answer = read_answer(dropbox / name) or {}
        node = answer.get("job")
        if not isinstance(node, Mapping):
            continue
        times = node.get("times")
        yield Seen(
            name=drop,
            state="ok" if node.get("status") == "ok" else "error",
            id=node.get("id"),
            script=answer.get("script"),
            since=written,
            reason=node.get("reason"),
            rc=node.get("rc"),
            message=node.get("message"),
            attempts=node.get("attempts"),
            node=node.get("node"),
            pilot=node.get("pilot"),
            times={k: _text(v) for k, v in times.items()} if isinstance(times, Mapping) else {},
        )


def _waiting(dropbox: Path, names: Sequence[str]) -> Iterator[Seen]:
    for name in names:
        if name.endswith(".job") and not name.startswith("."):
            since = _changed(dropbox / name)
            if since is not None:  # RACE: taken meanwhile, and seen as that.
                yield Seen(name, "waiting", since=since, cancel=f"{name}.cancel" in names)


def _of_submitted(name: str) -> str | None:
    """Return the drop's name of a `.submitted` copy's file name."""
    return name[: -len(".submitted")] if name.endswith(".job.submitted") else None


def _of_answer(name: str) -> str | None:
    """Return the drop's name of an answer's file name."""
    return name[: -len(".finished")] if name.endswith(".job.finished") else None


def _text(value: Any) -> str | None:
    """Return a time as ISO text: YAML readers make datetimes of unquoted ones."""
    if isinstance(value, datetime):
        return iso(value.replace(tzinfo=value.tzinfo or timezone.utc).timestamp())
    return None if value is None else str(value)


def _changed(path: Path) -> str | None:
    try:
        return iso(os.lstat(files.to_bytes(str(path))).st_mtime)
    except OSError:
        return None  # RACE: taken or read meanwhile.


def _recent(text: str | None, since: datetime | None) -> bool:
    when = moment(text)
    return since is None or when is None or when >= since
