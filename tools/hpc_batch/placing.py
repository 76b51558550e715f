"""Placing: putting verified outputs where the user wants them, all of them or none.

Each output lies complete and durable in a temporary file beside its destination before placing
begins. What stands at a destination is kept under another name until all outputs are in place, so
that a failure half-way puts everything back as it was.

    .hpcb-J-k.aN    output k of attempt N, on its way
    .hpcb-J-k.old   what stood at its destination

Every step may be repeated after a kill: a temporary that is gone was placed.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import replace

from hpc_batch.record import Record, Target
from hpc_cluster import files

NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EOPNOTSUPP)
"""Answers of file systems on which the old file is renamed, not linked."""

PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ENOMEM, errno.EAGAIN)
"""Errors that may pass by themselves; the job waits. All others are for good."""


def temporary(record: Record, number: int, attempt: int) -> str:
    """Return the path beside the destination where output `number` is collected."""
    return _beside(record, number, f"a{attempt}")


def observe(record: Record) -> tuple[Target, ...]:
    """Return the record's targets with what stands at their paths now, and what is about to."""
    found = []
    for number, target in enumerate(record.targets):
        status = os.lstat(temporary(record, number, record.attempt))
        existed = files.exists(target.path)
        found.append(replace(target, existed=existed, inode=status.st_ino))
    return tuple(found)


def place(record: Record) -> None:
    """PLACING to ANSWERING: rename all outputs to their destinations.

    Raises OSError; then the step is repeated, or undone by `unplace`.
    """
    for number, target in enumerate(record.targets):
        if os.path.isdir(target.path) and not os.path.islink(target.path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), target.path)
        if target.existed and files.exists(temporary(record, number, record.attempt)):
            _keep(target.path, _beside(record, number, "old"))
    for number, target in enumerate(record.targets):
        new = temporary(record, number, record.attempt)
        try:
            files.rename(new, target.path)
        except FileNotFoundError:
            # RACE: placed before a kill, which the inode will tell.
            pass
        if _inode(target.path) != target.inode:
            raise FileNotFoundError(errno.ENOENT, "the output that was placed is gone", target.path)
    files.sync_folders({os.path.dirname(t.path) for t in record.targets})


def unplace(record: Record) -> None:
    """UNPLACING to ANSWERING: put back what stood there, and remove what is ours.

    Raises OSError where that fails, after all else was tried; then the step is repeated.
    """
    failed: OSError | None = None
    for number, target in enumerate(record.targets):
        old = _beside(record, number, "old")
        try:
            if files.exists(old):
                files.rename(old, target.path)
                # rename does nothing when both names are the same file: only one is wanted.
                files.unlink(old)
            elif _inode(target.path) == target.inode:
                files.unlink(target.path)
        except OSError as error:
            failed = error
        with contextlib.suppress(OSError):
            files.unlink(temporary(record, number, record.attempt))
    for folder in {os.path.dirname(t.path) for t in record.targets}:
        with contextlib.suppress(OSError):
            files.sync_folder(folder)
    if failed is not None:
        raise failed


def tidy(record: Record, *, placed: bool) -> None:
    """Remove what is left of this job beside its destinations; what stood there, once `placed`."""
    for folder in {os.path.dirname(t.path) for t in record.targets}:
        prefix = f".hpcb-{record.id}-"
        with contextlib.suppress(OSError):
            for name in os.listdir(folder):
                if name.startswith(prefix) and (placed or not name.endswith(".old")):
                    files.unlink(os.path.join(folder, name))


def _beside(record: Record, number: int, ending: str) -> str:
    folder = os.path.dirname(record.targets[number].path)
    return os.path.join(folder, f".hpcb-{record.id}-{number}.{ending}")


def _keep(path: str, old: str) -> None:
    """Give what stands at a destination a second name, or where that fails another one."""
    try:
        files.link(path, old)
    except FileExistsError:
        return  # kept before a kill
    except FileNotFoundError:
        return  # its owner removed it meanwhile
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        files.rename(path, old)


def _inode(path: str) -> int:
    try:
        return os.lstat(path).st_ino
    except OSError:
        return -1
