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
import stat
from collections.abc import Container, Iterable, Mapping, Sequence

from hpc_batch.record import Record, Target
from hpc_cluster import durable, files

NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EOPNOTSUPP)
"""Answers of file systems on which the old file is renamed, not linked."""


PREFIX = ".hpcb-"
"""Begins the names of ours beside destinations; then come J, a dash and the output's number."""


def temporary(record: Record, number: int, attempt: int) -> str:
    """Return the path beside the destination where output `number` is collected."""
    return _beside(record, number, f"a{attempt}")


def observe(records: Sequence[Record]) -> list[Record]:
    """Return records whose targets tell what stands at their paths now, and what is about to."""
    free = files.missing(t.path for r in records for t in r.targets)

    def observed(record: Record, number: int, target: Target) -> Target:
        status = os.lstat(temporary(record, number, record.attempt))
        existed = target.path not in free and files.exists(target.path)
        return Target(target.key, target.path, existed, status.st_ino)

    return [
        r.but(targets=tuple(observed(r, n, t) for n, t in enumerate(r.targets))) for r in records
    ]


def place(record: Record) -> None:
    """PLACING to ANSWERING: rename all outputs to their destinations; not durable before `settle`.

    Raises OSError; then the step is repeated, or undone by `unplace`.
    """
    for number, target in enumerate(record.targets):
        if _is_folder(target.path):
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


def settle(records: Iterable[Record]) -> None:
    """Make what was placed for these records durable, each folder once. Raises OSError."""
    durable.sync_folders({os.path.dirname(t.path) for r in records for t in r.targets})


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
            durable.sync_folder(folder)
    if failed is not None:
        raise failed


def tidy_all(records: Mapping[str, Record], placed: Container[str]) -> None:
    """Remove what is left of jobs (J: record) beside their destinations, each folder listed once.

    What stood there goes too, of those that were `placed`. Raises OSError for what may pass; then
    the step is repeated.
    """
    for folder in {os.path.dirname(t.path) for r in records.values() for t in r.targets}:
        try:
            files.twice(_tidy, folder, records, placed)
        except OSError as error:
            # RACE: the folder's owner removed it, or took our right to it; then it is his.
            if error.errno in files.PASSING:
                raise


def _tidy(folder: str, records: Container[str], placed: Container[str]) -> None:
    """Remove what is left of jobs in one folder, listed twice: one listing may lack a name."""
    listed = {*os.listdir(folder), *os.listdir(folder)}
    found = sorted(name for name in listed if _job_of(name) in records)
    for name in found:
        if _job_of(name) in placed or not name.endswith(".old"):
            files.unlink(os.path.join(folder, name))
    if found:
        # The record goes next, and with it whoever would look for them here again.
        durable.sync_folder(folder)


def _job_of(name: str) -> str:
    """Return the J in a name of ours, or something that is none."""
    return name[len(PREFIX) :].rpartition("-")[0] if name.startswith(PREFIX) else ""


def _beside(record: Record, number: int, ending: str) -> str:
    folder = os.path.dirname(record.targets[number].path)
    return os.path.join(folder, f"{PREFIX}{record.id}-{number}.{ending}")


def _keep(path: str, old: str) -> None:
    """Give what stands at a destination a second name, or where that fails another one."""
    try:
        files.link(path, old)
    except FileExistsError:
        return  # kept before a kill
    except FileNotFoundError:
        if files.exists(path):
            raise
        return  # its owner removed it meanwhile
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if files.exists(old):
            return  # set aside before a kill
        with contextlib.suppress(FileNotFoundError):
            # RACE: its owner removed it meanwhile.
            files.rename(path, old)


def _is_folder(path: str) -> bool:
    """Tell whether a folder stands there, by one look: a rename onto one that hides fails, too."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError as error:
        if error.errno in files.PASSING:
            raise
        return False


def _inode(path: str) -> int:
    """Return the inode of what stands there; -1 for nothing. Raises OSError."""
    status = files.look(path)
    return -1 if status is None else status.st_ino
