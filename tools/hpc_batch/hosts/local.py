"""This machine as a host: commands run in /bin/sh, with pipes.

There is nothing to connect to; the first channel counts as a login all the same, so that whoever
counts logins need not know where the host is.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from hpc_batch.hosts.pipes import PipeChannel

GRACE_S = 2.0
"""A far end that loses its input puts things in order; over SSH nothing else ends it either."""


class LocalHost:
    """hosts.Host for `transport = local`."""

    def __init__(self, inherit: Sequence[int] = ()) -> None:
        self.name = "this machine"
        self.logins = 0
        self.channels = 0
        self._inherit = tuple(inherit)
        self._open: list[PipeChannel] = []
        self._lock = threading.Lock()

    def log_in(self) -> None:
        pass

    def open(self, command: str) -> PipeChannel:
        with self._lock:
            words = ["/bin/sh", "-c", command]
            channel = PipeChannel(words, inherit=self._inherit, grace_s=GRACE_S)
            self.logins = 1
            self.channels += 1
            self._open = [*(each for each in self._open if not each.closed), channel]
            return channel

    def close(self) -> None:
        with self._lock:
            for channel in self._open:
                channel.close()
            self._open = []
