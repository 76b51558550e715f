"""Failure: why the last pass could not work at all, for `status` and `explain` to show.

A pass that cannot begin (a configuration that no longer fits, a full disk, a bug) writes no status,
and the one that an earlier pass wrote still says that all is well. So it leaves `failed.json`
beside it: a block of fixed size, overwritten in place, because that needs no room on a full disk.
The next pass that works empties it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from hpc_batch.config import Config
from hpc_batch.errors import HpcBatchError
from hpc_batch.record import now
from hpc_cluster import PROTOCOL, files

NAME = "failed.json"

BLOCK_BYTES = 4096
"""One block of most file systems; a longer message is cut."""

MESSAGE_CHARACTERS = 600
"""Six bytes each at most, as JSON escapes them, and the rest: less than BLOCK_BYTES."""


def keep(state: Path, error: Exception) -> None:
    """Write down why a pass failed; nothing else may fail because that cannot be written."""
    known = isinstance(error, (HpcBatchError, OSError))
    message = str(error) if known else f"a bug: {type(error).__name__}: {error}"
    value = {
        "at": now(),
        "code": getattr(error, "exit_code", 70),
        "message": message[:MESSAGE_CHARACTERS],
    }
    with contextlib.suppress(OSError):
        if state.lstat().st_uid == os.geteuid():  # else it is the trouble, and not ours to write
            _write(state, {**value, "since": _read(state).get("since") or value["at"]})


def forget(state: Path) -> None:
    """Note that a pass has worked, and have room for the next failure."""
    if _read(state) or not files.exists(str(state / NAME)):
        with contextlib.suppress(OSError):
            # RACE: none; an old failure is older than the status of the pass that worked.
            _write(state, {})


def place(error: OSError, config: Config) -> str:
    """Return where a disk said no; a failed write itself does not tell."""
    if error.filename is not None:
        return os.fsdecode(error.filename)
    return f"state {config.cronjob.state} or dropbox {config.cronjob.dropbox}"


def _read(state: Path) -> dict[str, Any]:
    try:
        found = files.read_json(str(state / NAME))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.get("at") else {}


def _write(state: Path, value: dict[str, Any]) -> None:
    text = files.to_json({"protocol": PROTOCOL, **value}).rstrip().ljust(BLOCK_BYTES - 1) + b"\n"
    path = str(state / NAME)
    if files.exists(path):
        files.overwrite(path, text)
    else:
        files.replace(path, text)
