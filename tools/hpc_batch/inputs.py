"""An input: a regular local file, opened safely and identified.

What is not a regular file is never opened for long: a FIFO would hang the pass, a device could do
anything. The stamp (size, mtime, ctime, inode) tells whether the file is still the one that was
taken; the key names its copy in the cluster's store, so that a file of many jobs travels once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from typing import Iterable

from hpc_batch.errors import MissingInputError
from hpc_batch.record import Input
from hpc_cluster import files

Stamp = tuple[int, int, int, int]

YOUNG_NS = 2_000_000_000
"""A file changed less than two seconds ago may change again within one tick of its clock."""

SMALL_BYTES = 64 * 1024
"""Files below this bypass the store: sending is cheaper than remembering."""

BIG_BYTES = 64 * 1024 * 1024
"""Files from this size on travel in a lane of their own and delay nobody."""


def stamp_of(status: os.stat_result) -> Stamp:
    """Return what identifies a file's content: size, mtime and ctime in ns, inode."""
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def open_input(path: str) -> tuple[int, Stamp]:
    """Open a regular file for reading and return its descriptor and stamp.

    Raises MissingInputError with a sentence about the path, and OSError for what may pass.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise MissingInputError(f"{path!r} is not a regular file")
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                # RACE: exchanged between stat and open.
                raise MissingInputError(f"{path!r} is not a regular file")
        except BaseException:
            os.close(descriptor)
            raise
    except OSError as error:
        if error.errno in files.PASSING:
            raise
        raise MissingInputError(f"{path!r} cannot be read: {error.strerror}") from None
    return descriptor, stamp_of(status)


def insist(path: str) -> tuple[int, Stamp]:
    """Open an input as `open_input`; what one look does not find is looked for once more."""
    with contextlib.suppress(MissingInputError):
        return open_input(path)
    files.refresh(path)
    return open_input(path)


def examine(path: str) -> Stamp:
    """Return a file's stamp, having made sure that it can be read."""
    descriptor, stamp = insist(path)
    os.close(descriptor)
    return stamp


def lies_below(path: str, folders: Iterable[os.PathLike[str] | str]) -> bool:
    """Tell whether a path, links followed, lies in one of the folders or below.

    Raises OSError where that cannot be said now.
    """
    real = files.real_path(path)
    for folder in folders:
        root = files.real_path(os.fspath(folder))
        if real == root or real.startswith(root.rstrip("/") + "/"):
            return True
    return False


def key_of(host: str, entry: Input) -> str:
    """Return the store's name for an input: 32 hexadecimal characters.

    A file that was changed within the last two seconds gets a key that is never found again.
    """
    parts = [host, entry.path, *map(str, entry.stamp)]
    if time.time_ns() - entry.stamp[2] < YOUNG_NS:
        parts.append(str(time.time_ns()))
    text = "\0".join(parts).encode("utf-8", "surrogateescape")
    return hashlib.sha256(text).hexdigest()[:32]
