"""A host reached with the system's ssh, and everything that ssh knows: certificates, tokens,
ProxyCommand, GSSAPI.

One master process logs in and listens on a socket in a private folder (ssh_master); each channel is
a client that hands its pipes to the master. Nobody else's master is used, and ours is in nobody's
way: the socket's name is ours alone.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hpc_batch.errors import ConfigError
from hpc_batch.hosts.pipes import PipeChannel
from hpc_batch.hosts.ssh_master import Master

if TYPE_CHECKING:
    from hpc_batch.config import Remote


class OpenSSHHost:
    """hosts.Host for `transport = openssh`."""

    def __init__(self, remote: Remote, inherit: Sequence[int] = ()) -> None:
        if not shutil.which("ssh"):
            raise ConfigError(
                "[remote] transport = openssh: there is no ssh on PATH; "
                "install openssh-client, or set transport = fabric"
            )
        self.name = str(remote.host)
        self.logins = 0
        self.channels = 0
        self._remote = remote
        self._inherit = tuple(inherit)
        self._master: Master | None = None
        self._open: list[PipeChannel] = []
        self._lock = threading.Lock()

    def log_in(self) -> None:
        with self._lock:
            self._logged_in()

    def open(self, command: str) -> PipeChannel:
        with self._lock:
            channel = self._logged_in().channel(command)
            self.channels += 1
            self._open = [*(each for each in self._open if not each.closed), channel]
            return channel

    def close(self) -> None:
        with self._lock:
            self._disconnect()

    def _logged_in(self) -> Master:
        """Return the master, which has logged in; the caller holds the lock."""
        if self._master is None or self._master.ended.is_set():
            self._disconnect()
            self._master = Master(self._remote, self._inherit)
            self._master.log_in()
            self.logins += 1
        return self._master

    def _disconnect(self) -> None:
        for channel in self._open:
            channel.close()
        self._open = []
        if self._master:
            self._master.close()
            self._master = None
