"""Writing back: a long file reaches the disk while it still grows.

Otherwise all of it would wait in memory for the sync at its end, which then takes as long as the
disk needs for all, and so would any other sync on that file system meanwhile. A thread syncs what
has come, one sync at a time, while more is coming.

A sync that failed may not be told again by a later one (fsync(2)), so its error is kept and raised
by every further call, and what the file holds is not to be trusted.
"""

import contextlib
import threading
from typing import Optional

from hpc_cluster import durable, files, threads

PART_BYTES = 32 << 20
"""So much is written before it is synced; shorter files are left to the sync at their end."""


class Writeback:
    """What brings one open file to the disk; used by the thread that writes it."""

    def __init__(self, descriptor: int) -> None:
        """`descriptor` is closed by `close`."""
        self._descriptor = descriptor
        self._waiting = 0
        self._thread: Optional[threading.Thread] = None
        self._error: Optional[OSError] = None

    def wrote(self, count: int) -> None:
        """Note that so many bytes were written. Raises OSError."""
        self._waiting += count
        if self._waiting < PART_BYTES or (self._thread is not None and self._thread.is_alive()):
            return
        self._check()
        self._waiting = 0
        with contextlib.suppress(OSError):
            self._thread = threads.start(self._sync, "writeback")

    def close(self) -> None:
        """Wait for what has begun and close the file; the rest is left to the sync at its end.

        Raises OSError: of a sync that failed, or because a network file system reports a full disk
        at this moment.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        try:
            self._check()
        except OSError:
            # What could not be written back is not there, whatever can still be read.
            files.truncate(self._descriptor, 0)
            raise
        finally:
            files.close(self._descriptor)

    def _sync(self) -> None:
        try:
            durable.sync_descriptor(self._descriptor)
        except OSError as error:
            self._error = error

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
