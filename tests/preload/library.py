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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

import pytest

SOURCE = Path(__file__).parent / "judge.c"
HEAD = struct.Struct("=10i4q512s1024s")
SEEN = struct.Struct("=138i")
STORM = struct.Struct("=4i184i")
CODES = 8
CLASSES = 23


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
    EXEC = 131072
    THREAD = 262144
    PIPE = 524288
    """Descriptors without a file: pipes, inotify."""
    LOCK = 1048576
    NET = 2097152
    MEMORY = 4194304
    """malloc and its like, of which there are more than of all others."""


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
    GUARD = 32
    OTHER = 64
    """Jobs, and the shells around pilots."""
    SSH = 128
    """ssh, which nobody counts the calls of."""


EVERY_CALL = Call((1 << CLASSES) - 1) & ~Call.MEMORY
EVERY_ROLE = Role(127)
"""Of our own programs."""

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
    Call.EXEC: (errno.EIO, errno.ENOMEM, errno.EAGAIN, errno.EMFILE),
    Call.THREAD: (errno.EAGAIN,),
    Call.PIPE: TABLE,
    Call.LOCK: (errno.EIO, errno.ENOLCK),
    Call.NET: (errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT, errno.ENOBUFS),
}
"""What a class of calls may fail with."""

STRANGE: Mapping[Call, tuple[int, ...]] = {
    Call.OPEN_READ: (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EBUSY, errno.ECONNRESET),
    Call.OPEN_WRITE: (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EBUSY, errno.EROFS),
    Call.READ: (errno.EACCES, errno.EAGAIN, errno.EBADMSG, errno.ETIMEDOUT),
    Call.WRITE: (errno.EFBIG, errno.EAGAIN, errno.EPERM, errno.EROFS, errno.ETIMEDOUT),
    Call.SYNC: (errno.EROFS, errno.EINTR, errno.EREMOTEIO),
    Call.RENAME: (errno.EXDEV, errno.EACCES, errno.EPERM, errno.EBUSY, errno.ENOENT),
    Call.LINK: (errno.EXDEV, errno.EACCES, errno.ENOENT, errno.EEXIST),
    Call.UNLINK: (errno.EBUSY, errno.EACCES, errno.EPERM, errno.ENOENT),
    Call.MKDIR: (errno.EACCES, errno.EROFS, errno.ENOENT, errno.EEXIST),
    Call.RMDIR: (errno.EBUSY, errno.EACCES, errno.ENOTEMPTY, errno.ENOENT),
    Call.CLOSE: (errno.EINTR, errno.EACCES),
    Call.TRUNCATE: (errno.EACCES, errno.EFBIG, errno.EINTR),
    Call.ALLOCATE: (errno.EFBIG, errno.ENOSYS, errno.EINTR),
    Call.STAT: (errno.ENOENT, errno.EACCES, errno.ELOOP, errno.ETIMEDOUT, errno.EHOSTDOWN),
    Call.LIST: (errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.EINTR),
    Call.FORK: (errno.EPERM,),
    Call.MODE: (errno.EPERM, errno.EACCES, errno.EROFS),
    Call.EXEC: (errno.EACCES, errno.ENOENT, errno.ETXTBSY, errno.EPERM),
    Call.THREAD: (errno.EPERM,),
    Call.PIPE: (errno.EPERM,),
    Call.LOCK: (errno.EDEADLK, errno.EINTR, errno.EACCES),
    Call.NET: (errno.ECONNREFUSED, errno.EACCES),
}
"""What a call may say that is wrong, and that a user or an operator could have caused: said once,
it must not be believed."""

SHORT = -1
"""In `HARSH`: only half is read or written."""

HARSH: Mapping[Call, tuple[int, ...]] = {
    **{call: (*codes[:6], errno.EINTR) for call, codes in ERRORS.items()},
    Call.READ: (errno.EIO, errno.ESTALE, errno.EINTR, SHORT, SHORT, SHORT),
    Call.WRITE: (*DISK, errno.EINTR, SHORT, SHORT, SHORT),
    Call.STAT: (errno.EIO, errno.ESTALE, errno.EINTR, errno.ENOMEM),
    Call.THREAD: (errno.EAGAIN,),
    Call.NET: (*ERRORS[Call.NET], errno.EINTR, SHORT, SHORT),
}
"""What calls do in a storm."""

LOOKING = Call.OPEN_READ | Call.READ | Call.STAT | Call.LIST
"""Calls that change nothing."""

MACHINE = Call.FORK | Call.EXEC | Call.THREAD | Call.PIPE
"""Calls that need room in the machine's tables."""


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
        return {**os.environ, **self.variables()}

    def variables(self) -> dict[str, str]:
        """Return what of it is not everybody's."""
        return {"LD_PRELOAD": str(self._library), "JUDGE": str(self._path)}

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

    def storm(
        self, roles: Role, calls: Call, one_in: int, seed: int, *, everywhere: bool = False
    ) -> None:
        """Have one in so many of these calls go wrong, by chance.

        Of those, each fifth effect is done, and each 20th call is its process's last.

        `everywhere`: on all files, pipes and programs of the machine, Python's own among them.
        """
        codes = [(*HARSH.get(Call(1 << n), ()), *[0] * CODES)[:CODES] for n in range(CLASSES)]
        numbers = STORM.pack(one_in, 5, 20, seed, *(code for row in codes for code in row))
        self._map[HEAD.size + SEEN.size : HEAD.size + SEEN.size + STORM.size] = numbers
        self._set(3, roles, calls, Act.FAIL, everywhere=everywhere)

    def watch(self, calls: Call = EVERY_CALL) -> None:
        """Only count, in `seen`."""
        self._set(2, EVERY_ROLE, calls)
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

    def _set(self, *fields: int, where: str = "*", everywhere: bool = False) -> None:
        numbers = (*fields, *[0] * (9 - len(fields)))
        root = b"*" if everywhere else os.fsencode(f"{self._root}/{where}")
        self._map[: HEAD.size] = HEAD.pack(*numbers, *self._clock, root, b"")

    @property
    def hits(self) -> int:
        """How many calls went wrong."""
        return int(HEAD.unpack(self._map[: HEAD.size])[8])

    @property
    def hit(self) -> str:
        """The call that went wrong first; empty when none has."""
        fields = HEAD.unpack(self._map[: HEAD.size])
        return str(fields[-1].rstrip(b"\0").decode(errors="replace")) if fields[8] else ""

    def seen(self) -> dict[tuple[Role, Call], int]:
        """Return how many calls were made since `watch`."""
        numbers = SEEN.unpack(self._map[HEAD.size : HEAD.size + SEEN.size])
        return {
            (Role(1 << n // CLASSES), Call(1 << n % CLASSES)): number
            for n, number in enumerate(numbers)
            if number
        }


class Judged(Protocol):
    """A world whose programs run under a judge."""

    def end(self) -> None:
        """Leave nothing of it running."""


World = TypeVar("World", bound=Judged)


@contextmanager
def judging(folder: Path, make: Callable[[Path, Judge], World]) -> Iterator[World]:
    """Give a world in a folder, with a library and a judge of its own beside it."""
    made = make(folder / "w", Judge(built(folder), folder / "judge", folder / "w"))
    try:
        yield made
    finally:
        made.end()
