"""The operating system as a simulation sees it: real files, a clock of its own, and faults.

For the length of a test, calls of `os`, `time` and their like go through here. Files are real; what
is simulated is when things happened (a file's times are told by the simulated clock), whether a
disk has room, whether a folder's listing is up to date, and which effects survive a power cut
(`power`). Everything that changes a file below `root` is an effect: it takes one of the actor's
steps and a millisecond.
"""

from __future__ import annotations

import errno
import os
import random
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simulation.actors import Steps, current
from simulation.power import Disk

from hpc_cluster import effects

START = 2_000_000_000.0
"""The simulated clock begins here: whatever is older than the test is older than this."""

STALE_S = 30.0
"""A listing may lack what was done in the last so many seconds (NFS: acdirmax is 60)."""

UNSEEN = ("/state/log", "/state/lock")
"""Files that decide nothing: writing to them is no effect."""

CALLS = """
    rename link symlink unlink remove mkdir rmdir open fsync ftruncate write pwrite utime chmod
    posix_fallocate fchmod fchown listdir scandir stat lstat fstat waitid killpg urandom
"""
RAW = {name: getattr(os, name) for name in CALLS.split()}
CLOCKS = ("time", "time_ns", "monotonic", "sleep", "gmtime")
TIMES = {name: getattr(time, name) for name in CLOCKS}


class System:
    """What the simulated hosts have in common."""

    def __init__(self, root: Path, seed: int = 0) -> None:
        self.root = str(root)
        self.steps = Steps()
        self.now = START
        self.wall: dict[str, float] = {}
        """How wrong a host's own clock is, in seconds."""
        self.draw = random.Random(seed)
        self.full: set[str] = set()
        """Folders below root on whose disk there is no room."""
        self.stale = False
        """Listings may be old."""
        self.disks: list[Disk] = []
        """Whose power may be cut."""
        self.trace: list[tuple[str, str]] = []
        """The actors' effects so far: what was called, and on what."""
        self.processes: dict[int, Any] = {}
        """Jobs, by process id."""
        self.watch: Callable[[str, str, str], None] = lambda name, source, target: None
        """Called after each rename, link and unlink."""
        self._device = os.lstat(root).st_dev
        self._times: dict[int, tuple[float, float, float]] = {}
        self._changes: dict[str, list[tuple[float, str, bool, str]]] = {}

    # ---- effects -----------------------------------------------------------------------------

    def inside(self, path: Any, dir_fd: int | None = None) -> str | None:
        """Return the path as text where it is one of ours."""
        if isinstance(path, int):
            text = os.readlink(f"/proc/self/fd/{path}")
        else:
            text = os.fsdecode(path)
            if dir_fd is not None:
                text = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), text)
        ours = text.startswith(self.root + "/") and not text.endswith(UNSEEN)
        return text if ours else None

    def effect(self, name: str, path: str, *, takes_space: bool = False) -> None:
        """An effect is about to happen. Raises OSError where the disk is full."""
        actor = current()
        if actor is not None:
            actor.effect()
            self.now += 0.001
            self.trace.append((name, path))
        if takes_space and any(path.startswith(f"{self.root}/{name}/") for name in self.full):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def changed(self, path: str, present: bool) -> None:
        """A name was made or removed: the folder's listing is news to others."""
        actor = current()
        folder, name = os.path.split(path)
        news = self._changes.setdefault(folder, [])
        news.append((self.now, name, present, "user" if actor is None else actor.host))
        if len(news) > 50:
            del news[:25]

    def touched(self, inode: int, *, content: bool = True) -> None:
        """A file changed now."""
        accessed, modified, _ = self._times.get(inode, (self.now, self.now, self.now))
        self._times[inode] = (accessed, self.now if content else modified, self.now)

    def disk(self, path: str) -> Disk | None:
        return next((disk for disk in self.disks if disk.holds(path)), None)

    def told(self, status: os.stat_result) -> os.stat_result:
        """Return a status with the times of the simulated clock."""
        known = self._times.get(status.st_ino)
        if known is None or status.st_dev != self._device:
            return status
        names = ("st_atime", "st_mtime", "st_ctime")
        more: dict[str, Any] = dict(zip(names, known))
        more.update((f"{name}_ns", round(value * 1e9)) for name, value in zip(names, known))
        more.update(st_blksize=status.st_blksize, st_blocks=status.st_blocks, st_rdev=0)
        return os.stat_result(tuple(status)[:10], more)

    # ---- listings ----------------------------------------------------------------------------

    def listing(self, folder: str, names: list[str], *, shows_old: bool) -> list[str]:
        """Return a listing as an actor may see it: without the latest news of others."""
        actor = current()
        if not self.stale or actor is None:
            return names
        found = set(names)
        for moment, name, present, who in reversed(self._changes.get(folder, [])):
            if self.now - moment > STALE_S or who == actor.host or self.draw.random() < 0.5:
                break
            if present:
                found.discard(name)
            elif shows_old:
                found.add(name)
        return sorted(found)

    # ---- clocks ------------------------------------------------------------------------------

    def time(self) -> float:
        actor = current()
        return self.now + (self.wall.get(actor.host, 0.0) if actor is not None else 0.0)

    def sleep(self, seconds: float) -> None:
        actor = current()
        if actor is None:
            TIMES["sleep"](seconds)
            return
        actor.wake = self.now + seconds
        actor.stop("sleep")


class Entries:
    """The entries of a folder, with simulated times."""

    def __init__(self, system: System, entries: list[Any]) -> None:
        self._entries = iter([Entry(system, entry) for entry in entries])

    def __iter__(self) -> Entries:
        return self

    def __next__(self) -> Entry:
        return next(self._entries)

    def __enter__(self) -> Entries:
        return self

    def __exit__(self, *error: object) -> None:
        """Everything was read."""

    def close(self) -> None:
        """Everything was read."""


class Entry:
    """One of them."""

    def __init__(self, system: System, entry: Any) -> None:
        self._system, self._entry = system, entry

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        return self._system.told(self._entry.stat(follow_symlinks=follow_symlinks))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._entry, name)


def calls(system: System) -> dict[str, Callable[..., Any]]:
    """Return what takes the place of the functions of `os`."""

    def rename(source: Any, target: Any, **keys: Any) -> None:
        one, two = system.inside(source), system.inside(target)
        if one is None or two is None:
            return RAW["rename"](source, target, **keys)  # type: ignore[no-any-return]
        system.effect("rename", one)
        inode = RAW["lstat"](one).st_ino
        same = os.path.lexists(two) and RAW["lstat"](two).st_ino == inode
        disk = system.disk(two)
        if disk is not None and not same:
            disk.keep(two)
        RAW["rename"](one, two)
        if same:
            return None
        if disk is not None:
            disk.renamed(one, two, inode)
        system.touched(inode, content=False)
        system.changed(one, False)
        system.changed(two, True)
        system.watch("rename", one, two)
        return None

    def link(source: Any, target: Any, **keys: Any) -> None:
        one, two = system.inside(source), system.inside(target)
        if one is None or two is None:
            return RAW["link"](source, target, **keys)  # type: ignore[no-any-return]
        system.effect("link", two)
        RAW["link"](one, two, follow_symlinks=False)
        named(two)
        system.watch("link", one, two)
        return None

    def named(path: str) -> None:
        """A name was made for something."""
        inode = RAW["lstat"](path).st_ino
        disk = system.disk(path)
        if disk is not None:
            disk.named(path, inode)
        system.touched(inode, content=False)
        system.changed(path, True)

    def symlink(text: Any, path: Any, **keys: Any) -> None:
        one = system.inside(path)
        if one is None:
            return RAW["symlink"](text, path, **keys)  # type: ignore[no-any-return]
        system.effect("symlink", one, takes_space=True)
        RAW["symlink"](text, one)
        named(one)
        return None

    def unlink(path: Any, *, dir_fd: int | None = None) -> None:
        one = system.inside(path, dir_fd)
        if one is None:
            return RAW["unlink"](path, dir_fd=dir_fd)  # type: ignore[no-any-return]
        system.effect("unlink", one)
        remove(one, RAW["unlink"])
        system.watch("unlink", one, "")
        return None

    def remove(one: str, act: Callable[[str], None]) -> None:
        inode = RAW["lstat"](one).st_ino
        disk = system.disk(one)
        if disk is None or (act is RAW["rmdir"] and RAW["listdir"](one)):
            act(one)
        else:
            disk.remove(one, inode, act)
        system.touched(inode, content=False)
        system.changed(one, False)

    def mkdir(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        one = system.inside(path, dir_fd)
        if one is None:
            return RAW["mkdir"](path, mode, dir_fd=dir_fd)  # type: ignore[no-any-return]
        system.effect("mkdir", one, takes_space=True)
        RAW["mkdir"](one, mode)
        named(one)
        return None

    def rmdir(path: Any, *, dir_fd: int | None = None) -> None:
        one = system.inside(path, dir_fd)
        if one is None:
            return RAW["rmdir"](path, dir_fd=dir_fd)  # type: ignore[no-any-return]
        system.effect("rmdir", one)
        remove(one, RAW["rmdir"])
        return None

    def open_(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        one = system.inside(path, dir_fd)
        if one is None:
            return RAW["open"](path, flags, mode, dir_fd=dir_fd)  # type: ignore[no-any-return]
        there = os.path.lexists(one)
        if (not there and flags & os.O_CREAT) or flags & os.O_TRUNC:
            system.effect("open", one, takes_space=not there)
            there = os.path.lexists(one)
        descriptor: int = RAW["open"](one, flags, mode)
        if not there:
            named(one)
        if not there or flags & os.O_TRUNC:
            system.touched(RAW["fstat"](descriptor).st_ino)
        return descriptor

    def in_place(name: str, grows: Callable[[Any, os.stat_result], bool]) -> Callable[..., Any]:
        def call(descriptor: int, *args: Any) -> Any:
            one = system.inside(descriptor) if isinstance(descriptor, int) else None
            if one is None:
                return RAW[name](descriptor, *args)
            status = RAW["fstat"](descriptor)
            system.effect(name, one, takes_space=grows(args, status))
            value = RAW[name](descriptor, *args)
            system.touched(status.st_ino)
            return value

        return call

    def syncfs(descriptor: int) -> None:
        one = system.inside(descriptor)
        assert one is not None
        system.effect("syncfs", one)
        disk = system.disk(one)
        if disk is not None:
            disk.synced_all()

    def fsync(descriptor: int) -> None:
        one = system.inside(descriptor)
        if one is None:
            return RAW["fsync"](descriptor)  # type: ignore[no-any-return]
        system.effect("fsync", one)
        disk = system.disk(one)
        if disk is not None:
            disk.synced(descriptor)
        return None

    def utime(path: Any, times: Any = None, **keys: Any) -> None:
        one = system.inside(path)
        if one is None:
            return RAW["utime"](path, times, **keys)  # type: ignore[no-any-return]
        inode = RAW["lstat"](one).st_ino
        system.effect("utime", one)
        atime, mtime = (system.now, system.now) if times is None else times
        system._times[inode] = (float(atime), float(mtime), system.now)
        return None

    def chmod(path: Any, mode: int, **keys: Any) -> None:
        one = system.inside(path)
        if one is not None:
            system.effect("chmod", one)
        RAW["chmod"](path, mode, **keys)
        if one is not None:
            system.touched(RAW["stat"](one).st_ino, content=False)

    def listdir(path: Any = ".") -> list[Any]:
        found = RAW["listdir"](path)
        one = system.inside(path) if system.stale else None
        if one is None:
            return found  # type: ignore[no-any-return]
        binary = isinstance(path, bytes)
        names = [os.fsdecode(name) for name in found]
        seen = system.listing(one, names, shows_old=True)
        return [os.fsencode(name) for name in seen] if binary else list(seen)

    def scandir(path: Any = ".") -> Any:
        one = system.inside(path)
        if one is None:
            return RAW["scandir"](path)
        with RAW["scandir"](path) as entries:
            found = {entry.name: entry for entry in entries}
        if isinstance(path, int):
            return Entries(system, list(found.values()))
        seen = system.listing(one, list(found), shows_old=False)
        return Entries(system, [found[name] for name in seen])

    def waitid(kind: int, number: int, options: int) -> Any:
        process = system.processes.get(number)
        return RAW["waitid"](kind, number, options) if process is None else process.waitid()

    def killpg(group: int, number: int) -> None:
        process = system.processes.get(group)
        if process is None:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        process.killpg(number)

    def urandom(count: int) -> bytes:
        return system.draw.randbytes(count) if current() else RAW["urandom"](count)

    def appends(args: Any, status: os.stat_result) -> bool:
        return bool(args[0])

    def beyond(args: Any, status: os.stat_result) -> bool:
        return bool(args[1] + len(args[0]) > status.st_size)

    return {
        "rename": rename,
        "link": link,
        "symlink": symlink,
        "unlink": unlink,
        "remove": unlink,
        "mkdir": mkdir,
        "rmdir": rmdir,
        "open": open_,
        "write": in_place("write", appends),
        "pwrite": in_place("pwrite", beyond),
        "ftruncate": in_place("ftruncate", lambda args, status: False),
        "posix_fallocate": in_place(
            "posix_fallocate", lambda args, status: args[0] + args[1] > status.st_size
        ),
        "fchmod": in_place("fchmod", lambda args, status: False),
        "fchown": in_place("fchown", lambda args, status: False),
        "fsync": fsync,
        "syncfs": syncfs,
        "utime": utime,
        "chmod": chmod,
        "listdir": listdir,
        "scandir": scandir,
        "stat": lambda *args, **keys: system.told(RAW["stat"](*args, **keys)),
        "lstat": lambda *args, **keys: system.told(RAW["lstat"](*args, **keys)),
        "fstat": lambda *args: system.told(RAW["fstat"](*args)),
        "waitid": waitid,
        "killpg": killpg,
        "urandom": urandom,
    }


@contextmanager
def installed(system: System) -> Iterator[None]:
    """Let everybody use this system."""

    def monotonic() -> float:
        return system.now if current() else TIMES["monotonic"]()

    def simulated_time() -> float:
        return system.time() if current() else TIMES["time"]()

    clocks: dict[str, Callable[..., Any]] = {
        "time": simulated_time,
        "time_ns": lambda: int(system.time() * 1e9) if current() else TIMES["time_ns"](),
        "monotonic": monotonic,
        "sleep": system.sleep,
        "gmtime": lambda moment=None: TIMES["gmtime"](moment or simulated_time()),
    }
    gethostname, token_hex = socket.gethostname, secrets.token_hex
    set_signal, syncfs = signal.signal, effects.syncfs
    set_signal(signal.SIGIO, signal.SIG_IGN)

    def hostname() -> str:
        actor = current()
        return gethostname() if actor is None else actor.host

    def token(count: int = 32) -> str:
        return system.draw.randbytes(count).hex() if current() else token_hex(count)

    try:
        for name, call in calls(system).items():
            setattr(effects if name == "syncfs" else os, name, call)
        for name, call in clocks.items():
            setattr(time, name, call)
        socket.gethostname, secrets.token_hex = hostname, token  # type: ignore[assignment]
        signal.signal = lambda number, act: act  # type: ignore[assignment]
        yield
    finally:
        for name, call in RAW.items():
            setattr(os, name, call)
        effects.syncfs = syncfs
        for name, call in TIMES.items():
            setattr(time, name, call)
        socket.gethostname, secrets.token_hex = gethostname, token_hex
        signal.signal = set_signal
