"""The end of a stream that nobody reads, such as standard error.

A thread reads the stream so that its writer never blocks, and keeps the last KEEP_BYTES.
"""

from __future__ import annotations

import threading
from typing import Callable

from hpc_batch import threads

KEEP_BYTES = 64 << 10
READ_BYTES = 32 << 10
SETTLE_S = 1.0
"""How long `bytes` waits for the stream's end; a background process may hold it open for ever."""


class Tail:
    """The last bytes of a stream, read by a thread until its end."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        """Start reading; `read(n)` waits for some bytes and returns b"" at the end."""
        self._read = read
        self._kept = bytearray()
        self._lock = threading.Lock()
        self._thread = threads.start(self._drain, "stderr")

    def so_far(self) -> bytes:
        """Return what is kept now."""
        with self._lock:
            return bytes(self._kept)

    def settled(self) -> bytes:
        """Return what is kept once the stream has ended, waiting at most SETTLE_S for that."""
        self._thread.join(SETTLE_S)
        return self.so_far()

    def join(self) -> None:
        """Wait for the stream's end."""
        self._thread.join()

    def _drain(self) -> None:
        while data := self._read(READ_BYTES):
            with self._lock:
                self._kept += data
                del self._kept[:-KEEP_BYTES]
