"""Tidying: removing what is old and of no use to anyone, when the operator asks for it.

    history   lines of `state/history.jsonl` about jobs answered before a moment
    log       `state/log` and `state/log.1`, when their last line was written before it
    dropbox   files in `.hpc_batch` of jobs that are answered and forgotten, which a power cut left
    jobs      data on the cluster of jobs that nobody knows here, untouched for 36 hours
    tickets   those of passes that were cut off
    inputs    staged files that no job uses, beyond [limits] store_bytes
    kept      what `--nocleanup` kept since before that moment, when that is asked for

Nothing of a job without an answer is ever removed: a job is known as long as anything of it lies in
the state folder or in `.hpc_batch`, whether its record can be read or not; and a state that does
not belong to its dropbox (restored, cloned) is refused, because it would not know its jobs. Answers
in the dropbox belong to their users and are never touched.

It runs under the lock of the passes, so that none of them adds a line to a history that is being
rewritten.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone

from hpc_batch import hosts, session
from hpc_batch.config import Config
from hpc_batch.errors import RemoteError
from hpc_batch.journal import Journal
from hpc_batch.lingering import WHOLE_S
from hpc_batch.session import Session
from hpc_batch.state import OURS, State, hold
from hpc_batch.tidings import Swept
from hpc_cluster import files

ROUNDS = 20
"""A sweep deletes for some seconds; so many of them are asked for while there is something left."""


@dataclass(frozen=True)
class Removed:
    """What was removed, or would be, of one kind."""

    what: str
    """One of the words above."""
    entries: int
    bytes: int
    """0 where nobody counts them."""


@dataclass
class Tidied:
    """What came of tidying."""

    removed: list[Removed] = field(default_factory=list)
    unanswered: int = 0
    """Jobs without an answer: all of them, and all they have, were left alone."""
    kept: int | None = None
    """What is left in `kept/` on the cluster; None: the cluster was not asked."""
    trash: int | None = None
    """What is left in `trash/` there, for later passes to delete."""
    trouble: str | None = None
    """Why the cluster's part was left for another time."""


def tidy(config: Config, before: datetime, *, kept: bool, dry_run: bool) -> Tidied:
    """Remove what is older than `before`, from `kept/` only with `kept`; return what it was.

    With `dry_run` nothing changes, and the cluster is not asked, because nothing there says
    beforehand what a sweep would find. Raises Busy, ConfigError.
    """
    result = Tidied()
    with hold(config, WHOLE_S if config.cronjob.linger else 0) as state:
        begun = state.join()
        found = [_history(state, before, dry_run), _log(state, before, dry_run)]
        if begun:
            journal = state.journal().read()
            known = state.known_jobs()
            result.unanswered = sum(_is_unanswered(state, journal, job) for job in known)
            found.append(_dropbox(state, journal, dry_run))
        if begun and not dry_run:
            try:
                found += _cluster(config, state, before if kept else None, result)
            except RemoteError as error:
                result.trouble = str(error)
    result.removed = [item for item in found if item.entries]
    return result


def _is_unanswered(state: State, journal: Journal, job: str) -> bool:
    """Tell whether a job's answer is still reserved, or not decided."""
    decided = job not in journal.jobs() or journal.holds(job, "answer")
    return files.exists(state.of_job(job, "answer")) or not decided


def _history(state: State, before: datetime, dry_run: bool) -> Removed:
    path = state.path("history.jsonl")
    try:
        with open(path, "rb") as file:
            lines = file.readlines()
    except FileNotFoundError:
        return Removed("history", 0, 0)
    kept = [line for line in lines if not _is_old(line, before)]
    if len(kept) < len(lines) and not dry_run:
        files.replace(str(path), b"".join(kept))
    gone = sum(map(len, lines)) - sum(map(len, kept))
    return Removed("history", len(lines) - len(kept), gone)


def _is_old(line: bytes, before: datetime) -> bool:
    """Tell whether a line is about a job answered before; a torn line is, too."""
    try:
        answered = json.loads(line)["answered"].replace("Z", "+00:00")
        return datetime.fromisoformat(answered) < before
    except (ValueError, KeyError, TypeError, AttributeError):
        return True


def _log(state: State, before: datetime, dry_run: bool) -> Removed:
    entries, size = 0, 0
    for name in ("log", "log.1"):
        path = state.path(name)
        try:
            status = os.stat(path)
        except FileNotFoundError:
            continue
        if status.st_mtime < before.timestamp():
            entries, size = entries + 1, size + status.st_size
            if not dry_run:
                files.unlink(str(path))
    return Removed("log", entries, size)


def _dropbox(state: State, journal: Journal, dry_run: bool) -> Removed:
    """Remove what is left in `.hpc_batch` of jobs whose record is gone and whose answer is out.

    A record goes last, and before it the reserved answer, by being renamed into the dropbox; so a
    job that has neither is answered. Where an answer is still reserved, the record was lost: that
    job is left for `hpc-batch resume --restored`.
    """
    entries, size = 0, 0
    jobs = journal.jobs()
    for name in files.names(str(state.inner)):
        job = name.partition(".")[0]
        path = str(state.inner / name)
        if not OURS.match(name) or job in jobs or files.exists(state.of_job(job, "answer")):
            continue
        entries, size = entries + 1, size + os.lstat(path).st_size
        if not dry_run:
            files.unlink(path)
    state.trash.look()
    entries, size = entries + len(state.trash), size + state.trash.size()
    if not dry_run:
        state.trash.empty()
    return Removed("dropbox", entries, size)


def _cluster(
    config: Config, state: State, kept_before: datetime | None, result: Tidied
) -> Iterator[Removed]:
    """Sweep the workspace until there is no more to delete. Raises RemoteError."""
    kept_s = None
    if kept_before is not None:
        kept_s = (datetime.now(timezone.utc) - kept_before).total_seconds()
    swept: list[Swept] = []
    host = hosts.connect(config.remote, inherit=state.lock_descriptors)
    try:
        with session.begin(host, config.remote, config.env, state.instance) as opened:
            while _is_left(swept):
                swept.append(_swept(opened, config, state, kept_s))
    finally:
        host.close()
    result.kept, result.trash = swept[-1].kept, swept[-1].trash
    for what, names in (
        ("jobs", [name for one in swept for name in one.trashed]),
        ("tickets", [name for one in swept for name in one.litter]),
        ("inputs", [name for one in swept for name in one.evicted]),
        ("kept", [name for one in swept for name in one.unkept]),
    ):
        yield Removed(what, len(names), 0)


def _swept(opened: Session, config: Config, state: State, kept_s: float | None) -> Swept:
    return opened.sweep(state.known_jobs(), config.limits.store_bytes, kept_s)


def _is_left(swept: list[Swept]) -> bool:
    """Tell whether another sweep may delete more: trash is left, and there was more before."""
    if len(swept) < 2:
        return not swept or swept[-1].trash > 0
    return len(swept) < ROUNDS and 0 < swept[-1].trash < swept[-2].trash
