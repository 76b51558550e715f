"""The doorbell: what wakes a pass that waits.

Threads ring it (a ticket is in done, a big file has arrived, the connection broke), and so does
whoever brings something to the dropbox: a new drop, one whose writer has just closed it, a request
to cancel. On a local disk inotify tells, where inotify_simple is installed (the extra `linger`);
without it the folder's mtime is looked at five times a second, which costs as little. What others
bring to a network file system is told by neither, so there the names are listed once a second.

What happened while nobody waited is kept, so the next wait returns at once. Before the first wait,
or `listen`, nobody looks at the dropbox: it costs what a pass that never waits can do without.
"""

from __future__ import annotations

import os
import select
import threading
import time
from pathlib import Path
from typing import Protocol

from hpc_batch.config import network_file_system

LOCAL_S = 0.2
NETWORK_S = 1.0
"""How often a dropbox is looked at where nobody tells."""


class Doorbell:
    """The doorbell of one pass; one thread waits, any may ring."""

    def __init__(self, dropbox: Path) -> None:
        self._dropbox = dropbox
        self._watch: Watch | None = None
        self._read, self._write = os.pipe()
        self._open = threading.Lock()
        self._closed = False
        for end in (self._read, self._write):
            os.set_blocking(end, False)

    def listen(self) -> None:
        """Begin to notice what comes to the dropbox."""
        if self._watch is None:
            self._watch = _watch(self._dropbox)

    def ring(self) -> None:
        """End the wait, or the next one."""
        with self._open:
            if not self._closed:
                try:
                    os.write(self._write, b"r")
                except BlockingIOError:
                    return  # it is full of reasons to wake already

    def wait(self, seconds: float) -> bool:
        """Wait for a ring or a change of the dropbox; False when none came in so many seconds."""
        if self._watch is None:
            self.listen()
            return True  # something may have come before
        end = time.monotonic() + seconds
        descriptors = [self._read, *self._watch.descriptors]
        while True:
            rest = max(0.0, end - time.monotonic())
            ready = select.select(descriptors, [], [], min(rest, self._watch.period_s))[0]
            # Both are asked: what came is forgotten, whichever of them ends the wait.
            changed = self._watch.changed()
            if self._read in ready:
                os.read(self._read, 1 << 16)
                return True
            if changed or not rest:
                return changed

    def close(self) -> None:
        """Notice nothing more; who rings now rings in vain."""
        with self._open:
            self._closed = True
            os.close(self._read)
            os.close(self._write)
        if self._watch is not None:
            self._watch.close()


class Watch(Protocol):
    """Notices what comes to a folder."""

    descriptors: tuple[int, ...]
    """Readable when something came."""
    period_s: float
    """How often to ask `changed` when no descriptor tells."""

    def changed(self) -> bool:
        """Tell whether something came since the last time."""

    def close(self) -> None:
        """End it."""


def _watch(dropbox: Path) -> Watch:
    """Return the best watch that there is for a dropbox."""
    if network_file_system(dropbox) is not None:
        return Listing(dropbox, NETWORK_S)
    try:
        return Notified(dropbox)
    except (ImportError, OSError):
        # inotify_simple is not installed, or the account's instances of inotify are used up.
        return Listing(dropbox, LOCAL_S, local=True)


class Notified:
    """A watch by inotify."""

    period_s = 3600.0

    def __init__(self, dropbox: Path) -> None:
        """Raises ImportError, OSError."""
        import inotify_simple

        flags = inotify_simple.flags
        self._dropbox = str(dropbox)
        self._inotify = inotify_simple.INotify(nonblocking=True)
        try:
            mask = flags.CREATE | flags.MOVED_TO | flags.CLOSE_WRITE | flags.ONLYDIR
            self._inotify.add_watch(self._dropbox, mask)
        except OSError:
            self._inotify.close()
            raise
        self._overflow = int(flags.Q_OVERFLOW)
        self.descriptors: tuple[int, ...] = (self._inotify.fileno(),)

    def changed(self) -> bool:
        events = self._inotify.read(timeout=0)
        names = {event.name for event in events if _is_ours(event.name)}
        # What is gone again was taken, by the very sweep that it would wake.
        there = any(os.path.lexists(os.path.join(self._dropbox, name)) for name in names)
        return there or any(event.mask & self._overflow for event in events)

    def close(self) -> None:
        self._inotify.close()


class Listing:
    """A watch that looks for new names; `local`: only where the folder's mtime says that it must.

    A drop that is written on under its name is not noticed: who found it unsettled looks again.
    """

    descriptors: tuple[int, ...] = ()

    def __init__(self, dropbox: Path, period_s: float, *, local: bool = False) -> None:
        self.period_s = period_s
        self._dropbox, self._local = dropbox, local
        self._mtime = 0
        self._names: frozenset[str] = frozenset()
        self.changed()

    def changed(self) -> bool:
        try:
            mtime = os.stat(self._dropbox).st_mtime_ns
            if self._local and mtime == self._mtime:
                return False
            names = frozenset(name for name in os.listdir(self._dropbox) if _is_ours(name))
        except OSError:
            return False  # the next sweep says what is wrong with the dropbox
        new = names - self._names
        # A change within the clock's tick after this look would leave the same mtime.
        self._mtime = mtime if time.time_ns() - mtime > 100_000_000 else 0
        self._names = names
        return bool(new)

    def close(self) -> None:
        """Nothing is held."""


def _is_ours(name: str) -> bool:
    """Tell whether a name of the dropbox says something to a pass."""
    return name.endswith((".job", ".job.cancel")) and not name.startswith(".")
