"""Tidying: removing what is old and of no use to anyone, when the operator asks for it.

    history   lines of `state/history.jsonl` about jobs answered before a moment
    log       `state/log` and `state/log.1`, when their last line was written before it
    cluster   what killed passes left in the workspace (the session's verb `sweep`): 36 hours old

Answers in the dropbox belong to their users and are never touched. It runs under the lock of the
passes, so that none of them adds a line to a history that is being rewritten.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime

from hpc_batch import hosts, session
from hpc_batch.config import Config
from hpc_batch.state import State, hold
from hpc_cluster import files


@dataclass(frozen=True)
class Removed:
    """What was removed, or would be, of one kind."""

    what: str
    """history, log or cluster."""
    entries: int
    bytes: int
    """0 where nobody counts them."""


def tidy(config: Config, before: datetime, *, dry_run: bool) -> list[Removed]:
    """Remove what is older than `before` and return what it was; nothing with `dry_run`.

    Without a history there was no job yet, and the cluster is left alone; so it is with `dry_run`,
    because nothing there says beforehand what a sweep would find. Raises Busy, ConfigError,
    RemoteError.
    """
    with hold(config) as state:
        found = [_history(state, before, dry_run), _log(state, before, dry_run)]
        if not dry_run:
            found.append(_cluster(config, state))
        return [item for item in found if item is not None and item.entries]


def _history(state: State, before: datetime, dry_run: bool) -> Removed | None:
    path = state.path("history.jsonl")
    try:
        with open(path, "rb") as file:
            lines = file.readlines()
    except FileNotFoundError:
        return None
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


def _log(state: State, before: datetime, dry_run: bool) -> Removed | None:
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


def _cluster(config: Config, state: State) -> Removed | None:
    machine = state.read("machine")
    if machine is None:
        return None
    known = files.names(str(state.path("jobs")))
    host = hosts.connect(config.remote, inherit=state.lock_descriptors)
    try:
        with session.begin(host, config.remote, config.env, machine["instance"]) as opened:
            trashed = opened.sweep(known, config.limits.store_bytes)
    finally:
        host.close()
    return Removed("cluster", len(trashed), 0)
