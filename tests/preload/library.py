"""The library of `judge.c`: built, and armed from a test.

A `Judge` is the small file that the library maps in every process that is started with
`environment()`. `arm` sets one fault, `disarm` takes it away, also from programs that run already.
"""

from __future__ import annotations

import enum
import errno
import mmap
import os
import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "judge.c"
HEAD = struct.Struct("=10i4q512s1024s")
SEEN = struct.Struct("=85i")


class Call(enum.IntFlag):
    """Classes of calls."""

    OPEN_READ = 1
    OPEN_WRITE = 2
    READ = 4
    WRITE = 8
    SYNC = 16
    RENAME = 32
    LINK = 64
    UNLINK = 128
    MKDIR = 256
    RMDIR = 512
    CLOSE = 1024
    TRUNCATE = 2048
    ALLOCATE = 4096
    STAT = 8192
    LIST = 16384
    FORK = 32768
    MODE = 65536


class Act(enum.IntEnum):
    """What happens to a call."""

    KILL_BEFORE = 1
    KILL_AFTER = 2
    FAIL = 3
    DONE_BUT_ERROR = 4
    SHORT = 5
    """Half of what is written or read."""
    HIDE = 6
    """A listing lacks an entry."""


class Role(enum.IntFlag):
    """Programs."""

    SUBMITTER = 1
    SESSION = 2
    RUNNER = 4
    CLIENT = 8
    LOCAL = 16
    OTHER = 32
    """Jobs, and the shells around pilots."""


EVERY_CALL = Call((1 << 17) - 1)
EVERY_ROLE = Role(63)

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE)
TABLE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)

ERRORS: Mapping[Call, tuple[int, ...]] = {
    Call.OPEN_READ: (errno.EIO, errno.ESTALE, *TABLE),
    Call.OPEN_WRITE: (*DISK, *TABLE),
    Call.READ: (errno.EIO, errno.ESTALE),
    Call.WRITE: DISK,
    Call.SYNC: DISK,
    Call.RENAME: DISK,
    Call.LINK: (*DISK, errno.EMLINK, errno.EPERM),
    Call.UNLINK: (errno.EIO, errno.ESTALE),
    Call.MKDIR: (*DISK, errno.EMLINK),
    Call.RMDIR: (errno.EIO, errno.ESTALE),
    Call.CLOSE: DISK,
    Call.TRUNCATE: (errno.EIO, errno.ESTALE),
    Call.ALLOCATE: (*DISK, errno.EOPNOTSUPP),
    Call.STAT: (errno.EIO, errno.ESTALE),
    Call.LIST: (errno.EIO, errno.ESTALE, *TABLE),
    Call.FORK: (errno.EAGAIN, errno.ENOMEM),
    Call.MODE: (errno.EIO, errno.ESTALE),
}
"""What a class of calls may fail with."""


def built(folder: Path) -> Path:
    """Return the library, compiled into a folder; skip where there is no compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler: apt-get install gcc libc6-dev")
    library = folder / "judge.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"the library cannot be compiled here: {done.stderr[:200]}")
    return library


class Judge:
    """One fault, and wrong clocks, for the programs of one world."""

    def __init__(self, library: Path, path: Path, root: Path) -> None:
        self._library, self._path, self._root = library, path, root
        path.write_bytes(bytes(4096))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 4096)
        self._clock = (0, 0, 0, 0, 0)
        self._set()

    def environment(self) -> dict[str, str]:
        """Return what programs must be started with."""
        return {**os.environ, "LD_PRELOAD": str(self._library), "JUDGE": str(self._path)}

    def arm(
        self,
        roles: Role,
        calls: Call,
        act: Act,
        at: int,
        error: int = 0,
        times: int = 1,
        where: str = "*",
    ) -> None:
        """Have the `at`-th of these calls, and `times` - 1 that follow, go wrong.

        `where` is a pattern (fnmatch) of paths below the root.
        """
        self._set(1, roles, calls, act, error, at, times, where=where)

    def watch(self) -> None:
        """Only count, in `seen`."""
        self._set(2, EVERY_ROLE, EVERY_CALL)
        self._map[HEAD.size : HEAD.size + SEEN.size] = bytes(SEEN.size)

    def disarm(self) -> None:
        self._map[:4] = struct.pack("=i", 0)

    def clock(self, roles: Role, shift_s: int) -> None:
        """Shift the clock of some programs; the monotonic one stays."""
        self._clock = (roles, shift_s, *self._clock[2:])
        self._keep()

    def server(self, shift_s: int, since_s: int) -> None:
        """Shift the times of files that are changed from a moment on (Unix time)."""
        self._clock = (*self._clock[:2], shift_s, since_s, self._clock[4])
        self._keep()

    def wait(self, seconds: int) -> None:
        """Let time go by for sessions: their monotonic clock goes forward."""
        self._clock = (*self._clock[:4], self._clock[4] + seconds)
        self._keep()

    def _keep(self) -> None:
        fields = list(HEAD.unpack(self._map[: HEAD.size]))
        fields[9:14] = self._clock
        self._map[: HEAD.size] = HEAD.pack(*fields)

    def _set(self, *fields: int, where: str = "*") -> None:
        numbers = (*fields, *[0] * (9 - len(fields)))
        root = os.fsencode(f"{self._root}/{where}")
        self._map[: HEAD.size] = HEAD.pack(*numbers, *self._clock, root, b"")

    @property
    def hit(self) -> str:
        """The call that went wrong first; empty when none has."""
        fields = HEAD.unpack(self._map[: HEAD.size])
        return str(fields[-1].rstrip(b"\0").decode(errors="replace")) if fields[8] else ""

    def seen(self) -> dict[tuple[Role, Call], int]:
        """Return how many calls were made since `watch`."""
        numbers = SEEN.unpack(self._map[HEAD.size : HEAD.size + SEEN.size])
        return {
            (Role(1 << n // 17), Call(1 << n % 17)): number
            for n, number in enumerate(numbers)
            if number
        }
