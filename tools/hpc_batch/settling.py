"""Settling: whether somebody may still be writing a drop.

A drop is settled when nobody can still be writing it:

    its last line is YAML's end mark `...`                              at once
    nobody has it open for writing (the kernel grants a read lease)     2 s after the last change
    the lease says nothing (a network file system, another owner)       after `settle` (10 s);
                                                                        60 s without a last newline
    a writer has it open                                                10 min after the last change

each of a file that parses to a mapping with a `script`. What does not is taken after 60 s (10 min
where leases say nothing or a writer has it open) and answered with the error. What cannot even be
answered, such as a FIFO, is left alone. Ages are counted by the dropbox's own clock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import stat
from typing import Literal, NamedTuple

from hpc_batch import jobfile
from hpc_batch.config import Config
from hpc_cluster import files

QUIET_S = 2.0
OPEN_S = 600.0
NO_NEWLINE_S = 60.0
HOPELESS_S = 60.0
"""QUIET_S < settle < NO_NEWLINE_S, HOPELESS_S < OPEN_S: the less is known, the longer the wait."""

Lease = Literal["quiet", "open", "unknown"]


class Look(NamedTuple):
    """A drop as one look shows it, which opens it once: what is judged is what is taken."""

    changed: float
    """ctime in seconds by the dropbox's clock."""
    owner: int
    text: bytes = b""
    """What it held, with nothing left out up to `jobfile.JOB_BYTES`."""
    content: Literal["no", "mapping", "end"] = "no"
    """What `jobfile.settled` says of that."""
    lease: Lease = "unknown"
    """Not asked where the text has YAML's end mark."""
    error: OSError | None = None
    """Why it cannot be read."""
    is_file: bool = True
    """A regular one; others are never read."""


def look(path: str) -> Look:
    """Look at a drop, or at one already taken.

    Raises FileNotFoundError when it is gone, and OSError for what may pass.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in files.PASSING:
            raise
        status = os.lstat(path)
        # RACE: a FIFO or a link has taken its place.
        is_file = error.errno not in (errno.ELOOP, errno.ENXIO)
        return Look(status.st_ctime, status.st_uid, error=error, is_file=is_file)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            why = OSError(errno.EINVAL, "it is not a regular file")
            return Look(status.st_ctime, status.st_uid, error=why, is_file=False)
        lease: Lease = "unknown"
        text = _text(descriptor, status.st_size)
        content = jobfile.settled(text)
        if content != "end":
            # A writer may have been at work meanwhile: only what is read from here on counts.
            lease, status = _lease(descriptor), os.fstat(descriptor)
            text = _text(descriptor, status.st_size)
            content = jobfile.settled(text)
    finally:
        os.close(descriptor)
    return Look(status.st_ctime, status.st_uid, text, content, lease)


def wait_of(look: Look, clock: float, config: Config) -> tuple[float, str]:
    """Return for how long a drop will not be taken yet, in seconds, and why, in words.

    0 when it is settled.
    """
    if not look.is_file:
        return float("inf"), "it is no regular file and is left alone"
    patience_s, why = _patience(look, config)
    return max(0.0, patience_s - (clock - look.changed)), why


def _text(descriptor: int, size: int) -> bytes:
    """Return what a file holds, from its beginning; of one that is too long, enough."""
    text = b""
    while len(text) <= jobfile.JOB_BYTES:
        most = min(max(size, 1 << 12), jobfile.JOB_BYTES) + 1
        block = os.pread(descriptor, most, len(text))
        if not block:
            break
        text += block
    return text


def _patience(look: Look, config: Config) -> tuple[float, str]:
    """Return how old a drop must be, and why."""
    if look.error is not None:
        return HOPELESS_S, "it cannot be read"
    if look.content == "end":
        return 0.0, "it ends with the mark `...`"
    if look.lease == "open":
        return OPEN_S, "a program has it open for writing"
    if look.content == "no":
        return (
            HOPELESS_S if look.lease == "quiet" else OPEN_S,
            "it is no complete job file (a mapping with a script) and may still be being written",
        )
    if look.lease == "quiet":
        return QUIET_S, "it was changed just now"
    settle = float(config.cronjob.settle)
    if look.text.endswith(b"\n"):
        return settle, "nothing tells whether it is still being written"
    return max(settle, NO_NEWLINE_S), "its last line has no end, so more may be coming"


def _lease(descriptor: int) -> Lease:
    """Ask the kernel whether anybody has the file open for writing."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        # RACE: EAGAIN is the answer "open"; EINVAL and EACCES are no knowledge.
        return "open" if error.errno == errno.EAGAIN else "unknown"
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return "quiet"
