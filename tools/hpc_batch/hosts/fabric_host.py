"""A host reached with fabric: the SSH client is paramiko, in this process.

Commands do not go through fabric's `Connection.run`, which sleeps and decodes, but through plain
channels of the connection it has made. fabric_login makes it; this module uses it.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from typing import TYPE_CHECKING

import fabric
import paramiko

from hpc_batch.errors import RemoteError, RemoteTimeout
from hpc_batch.hosts.fabric_login import WINDOW_BYTES, Login
from hpc_batch.hosts.line import Line, deadline
from hpc_batch.hosts.pipes import TIMEOUT_S, last_line
from hpc_batch.hosts.tail import Tail

if TYPE_CHECKING:
    from hpc_batch.config import Remote

DROPPED = (EOFError, OSError, paramiko.SSHException)
"""What paramiko raises when a channel or the connection has ended."""


class FabricHost:
    """hosts.Host for `transport = fabric`."""

    def __init__(self, remote: Remote) -> None:
        self.name = str(remote.host)
        self.logins = 0
        self.channels = 0
        self._remote = remote
        self._connections: list[fabric.Connection] = []
        self._lock = threading.Lock()
        log = logging.getLogger("paramiko")
        if log.level == logging.NOTSET:
            # It logs the traceback of every connection that ends; our errors say it in one line.
            log.setLevel(logging.CRITICAL)

    def log_in(self) -> None:
        with self._lock:
            self._logged_in()

    def open(self, command: str) -> FabricChannel:
        with self._lock:
            channel = self._start(self._logged_in(), command)
            self.channels += 1
            return channel

    def close(self) -> None:
        with self._lock:
            self._disconnect()

    def _logged_in(self) -> paramiko.Transport:
        """Return the connection, which has logged in; the caller holds the lock."""
        transport = self._transport()
        if transport is None or not transport.is_active():
            self._disconnect()
            self._connections = Login(self._remote).run()
            self.logins += 1
            transport = self._transport()
        if transport is None:
            raise RemoteError(f"{self.name}: the connection is lost")
        return transport

    def _start(self, transport: paramiko.Transport, command: str) -> FabricChannel:
        with deadline(self._remote.connect_timeout, transport.close) as expired:
            try:
                session = transport.open_session()
                session.exec_command(command)
            except paramiko.ChannelException as error:
                raise RemoteError(
                    f"{self.name} refuses a further channel: {error.text}",
                    "MaxSessions of the host's sshd_config must allow some",
                ) from error
            except DROPPED as error:
                if expired.is_set():
                    raise RemoteTimeout(f"{self.name} does not start the command") from error
                raise RemoteError(f"{self.name}: the connection is lost ({error})") from error
        return FabricChannel(session, transport)

    def _transport(self) -> paramiko.Transport | None:
        if not self._connections:
            return None
        transport: paramiko.Transport | None = self._connections[-1].client.get_transport()
        return transport

    def _disconnect(self) -> None:
        for connection in reversed(self._connections):
            connection.client.close()
        self._connections = []


class FabricChannel:
    """hosts.Channel on a session of the connection."""

    def __init__(self, session: paramiko.Channel, transport: paramiko.Transport) -> None:
        self._session = session
        self._transport = transport
        self._ahead = memoryview(b"")
        self.set_timeout(TIMEOUT_S)
        self._tail = Tail(self._read_stderr)

    def set_timeout(self, seconds: float) -> None:
        self._timeout_s = seconds
        self._session.settimeout(seconds)

    def write(self, data: bytes | memoryview) -> None:
        Line.patience.seconds = self._timeout_s
        rest = memoryview(data)
        while rest:
            try:
                sent = self._session.send(rest)  # type: ignore[arg-type]
            except socket.timeout:
                raise self._nothing("could be sent") from None
            except DROPPED as error:
                raise self._ended() from error
            if sent == 0:
                raise self._ended()
            rest = rest[sent:]

    def read(self, n: int) -> bytes:
        if not self._ahead:
            self._ahead = memoryview(self._receive())
        data, self._ahead = bytes(self._ahead[:n]), self._ahead[n:]
        return data

    def readinto(self, view: memoryview) -> int:
        if not self._ahead:
            self._ahead = memoryview(self._receive())
        count = min(len(view), len(self._ahead))
        view[:count] = self._ahead[:count]
        self._ahead = self._ahead[count:]
        return count

    def _receive(self) -> bytes:
        """Return all that has come, b"" at the end.

        paramiko keeps it in one array: to take a part from its beginning would move all the rest.
        """
        Line.patience.seconds = self._timeout_s
        Line.patience.reads = True
        try:
            data = self._session.recv(WINDOW_BYTES)
        except socket.timeout:
            raise self._nothing("came") from None
        except DROPPED as error:
            # Reading sends too: it tells the far end how much it may send on.
            raise self._ended() from error
        finally:
            Line.patience.reads = False
        if not data and not self._session.eof_received:
            raise self._ended()
        return data

    def finish(self) -> int | None:
        try:
            self._session.shutdown_write()
        except DROPPED:
            # RACE: the channel ended meanwhile; its status tells how.
            pass
        while self.read(WINDOW_BYTES):
            pass
        if not self._session.status_event.wait(self._timeout_s):
            raise RemoteTimeout(f"the command did not end within {self._timeout_s:g} s")
        status = self._session.exit_status
        if status < 0 and not self._session.eof_received:
            raise self._ended()
        self.close()
        return status if status >= 0 else None

    def stderr_tail(self) -> bytes:
        ended = self._session.status_event.is_set()
        return self._tail.settled() if ended else self._tail.so_far()

    def close(self) -> None:
        with contextlib.suppress(*DROPPED):
            # RACE: the connection ends just now; closing says goodbye, and nobody hears it.
            self._session.close()
        self._tail.settled()

    def _read_stderr(self, n: int) -> bytes:
        while True:
            try:
                return self._session.recv_stderr(n)
            except socket.timeout:
                continue
            except DROPPED:
                return b""

    def _nothing(self, what: str) -> RemoteTimeout:
        return RemoteTimeout(f"nothing {what} for {self._timeout_s:g} s")

    def _ended(self) -> RemoteError:
        """Return the error for a channel that carries nothing more."""
        if getattr(self._transport.sock, "stalled", False):
            self._transport.close()
            return self._nothing("could be sent")
        if self._session.exit_status < 0 and not self._session.eof_received:
            return RemoteError("the connection is lost", last_line(self._tail.so_far()))
        return RemoteError(
            f"the command has ended with status {self._session.exit_status}",
            last_line(self._tail.settled()),
        )
