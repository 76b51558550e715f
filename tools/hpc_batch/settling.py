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
from dataclasses import dataclass
from typing import Literal

from hpc_batch import jobfile
from hpc_batch.config import Config
from hpc_cluster import files

QUIET_S = 2.0
OPEN_S = 600.0
NO_NEWLINE_S = 60.0
HOPELESS_S = 60.0
"""QUIET_S < settle < NO_NEWLINE_S, HOPELESS_S < OPEN_S: the less is known, the longer the wait."""

Lease = Literal["quiet", "open", "unknown"]
Verdict = Literal["take", "wait", "leave"]


@dataclass(frozen=True)
class Look:
    """A drop as one look shows it."""

    age_s: float
    """Since its last change."""
    readable: bool
    lease: Lease = "unknown"
    content: Literal["no", "mapping", "end"] = "no"
    """What `jobfile.settled` says."""
    newline: bool = True
    """It ends with one."""


def judge(path: str, clock: float, config: Config) -> Verdict:
    """Tell whether a drop, or one already taken, is settled: take it, wait, or leave it alone.

    Raises FileNotFoundError when it is gone, and OSError for what may pass.
    """
    look = _look(path, clock)
    if look is None:
        return "leave"
    return "take" if look.age_s >= _patience(look, config)[0] else "wait"


def wait_of(path: str, clock: float, config: Config) -> tuple[float, str]:
    """Return for how long a drop will not be taken yet, in seconds, and why, in words.

    0 when it is settled. Raises FileNotFoundError when it is gone, and OSError for what may pass.
    """
    look = _look(path, clock)
    if look is None:
        return float("inf"), "it is no regular file and is left alone"
    patience_s, why = _patience(look, config)
    return max(0.0, patience_s - look.age_s), why


def _look(path: str, clock: float) -> Look | None:
    """Look at a drop; None when it is no regular file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        # RACE: a FIFO or a link has taken its place.
        if error.errno in (errno.ELOOP, errno.ENXIO):
            return None
        if error.errno in files.PASSING:
            raise
        return Look(clock - os.lstat(path).st_ctime, readable=False)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        age, lease = clock - status.st_ctime, _lease(descriptor)
        if status.st_size > jobfile.JOB_BYTES:
            return Look(age, readable=True, lease=lease)
        data = file.read(status.st_size + 1)
        content, newline = jobfile.settled(data), data.endswith(b"\n")
        return Look(age, readable=True, lease=lease, content=content, newline=newline)


def _patience(look: Look, config: Config) -> tuple[float, str]:
    """Return how old a drop must be, and why."""
    if not look.readable:
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
    if look.newline:
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
