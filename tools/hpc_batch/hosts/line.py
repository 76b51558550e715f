"""The line under a paramiko transport, with an end to every wait.

paramiko repeats a send that timed out for ever, holding its lock. A `Line` wraps its socket and
gives up after the patience of the thread that is sending. Half a packet may then be on the wire,
so the connection is of no more use.

`dial` makes the connection, whatever the number of the host's addresses. `deadline` ends the
waits of a login, which paramiko times one by one, all together.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable

from hpc_batch import threads
from hpc_batch.hosts.pipes import TIMEOUT_S

READ_BYTES = 256 << 10
"""Read ahead of paramiko, which asks for each packet twice: for its length, and for the rest."""


class Line:
    """A socket that gives up sending after a while without progress, and reads ahead."""

    patience = threading.local()
    """Its `seconds`: how long a thread that sends may be kept waiting. `reads`: it reads, and sends
    only how much it has room for; what it has read must not be lost because that cannot be sent."""

    def __init__(self, wire: Any) -> None:
        """Wrap a socket, or what paramiko takes for one: a channel or a ProxyCommand."""
        self.stalled = False
        self._wire = wire
        self._since: float | None = None
        self._ahead = memoryview(b"")

    def recv(self, n: int) -> bytes:
        """Receive up to n bytes, as socket.recv; one thread at a time."""
        if not self._ahead:
            self._ahead = memoryview(self._wire.recv(READ_BYTES))
        data, self._ahead = bytes(self._ahead[:n]), self._ahead[n:]
        return data

    def send(self, data: bytes) -> int:
        """Send some bytes, as socket.send; raises ConnectionError when they do not move."""
        try:
            sent: int = self._wire.send(data)
        except socket.timeout:
            now = time.monotonic()
            self._since = self._since or now
            if now - self._since < getattr(self.patience, "seconds", TIMEOUT_S):
                raise
            self.stalled = True
            raise ConnectionError("the connection is stalled") from None
        except OSError:
            if getattr(self.patience, "reads", False):
                return len(data)  # paramiko's own thread meets the end of the connection as well
            raise
        self._since = None
        return sent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wire, name)


def dial(host: str, port: int, seconds: float) -> socket.socket:
    """Connect to the first address of a host that answers, within `seconds` for all together.

    Raises OSError, the last address's, when none answers.
    """
    limit = time.monotonic() + seconds
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failure: OSError = OSError(f"{host} has no address")
    for tried, (family, kind, protocol, _, address) in enumerate(addresses):
        wire = socket.socket(family, kind, protocol)
        try:
            wire.settimeout(max(0.1, (limit - time.monotonic()) / (len(addresses) - tried)))
            wire.connect(address)
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            wire.close()
            failure = error
        else:
            return wire
    raise failure


@contextlib.contextmanager
def deadline(seconds: float, abandon: Callable[[], None]) -> Iterator[threading.Event]:
    """Call `abandon` if the block takes longer; the event is set just before."""
    expired, over = threading.Event(), threading.Event()

    def watch() -> None:
        if not over.wait(seconds):
            expired.set()
            abandon()

    threads.start(watch, "time limit")
    try:
        yield expired
    finally:
        over.set()
