"""Hosts: places where commands run, reached in one of three ways.

    host = hosts.connect(config.remote)
    channel = host.open("hpc_session serve ...")    # the first open logs in
    channel.write(b"...")
    channel.read(65536)
    status = channel.finish()
    host.close()

A host is logged into once; every channel after that is one command with its two streams on the
same connection. Above this package nobody knows which way was taken:

    local     /bin/sh on this machine                      (module local)
    fabric    fabric and paramiko, in this process         (module fabric_host)
    openssh   the system's ssh with a master of our own    (module openssh)

What they promise alike (tests/integration/test_hosts.py is the contract):

- A host key is checked before anything of ours is sent. Unknown, changed and revoked keys are
  refused; none is ever learned.
- `write` sends all of it or raises; `read` returns as soon as some bytes are there. Neither waits
  for the other side longer than the channel's timeout without a byte moving. One thread may read
  while another writes.
- stderr is read in the background and its end is kept, so that a chatty command never blocks.
- A connection that ends in mid-transfer is a RemoteError, never an end of file.
- After a connection is lost, the next `open` logs in again.

`inherit` names descriptors (the submitter's lock) that live on in every process this package
starts, until the last of them has ended.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from hpc_batch.errors import ConfigError

if TYPE_CHECKING:
    from hpc_batch.config import Remote

HOST = re.compile(r"[^-\s\x00-\x1f'\"`$\\;&<>|(){}][^\s\x00-\x1f'\"`$\\;&<>|(){}]*")
"""What OpenSSH itself accepts as a host name (ssh.c, valid_hostname): a name from a file must not
become an option or a piece of shell in a ProxyCommand. A user's name may not hold these either."""


class Channel(Protocol):
    """One command that runs on a host."""

    def write(self, data: bytes | memoryview) -> None:
        """Send all of `data` to the command's standard input.

        Raises RemoteError when the command or the connection has ended, RemoteTimeout when no byte
        could be sent for the channel's timeout.
        """

    def read(self, n: int) -> bytes:
        """Return 1 to n bytes of standard output as soon as there are some, b"" at its end.

        Raises RemoteError when the connection is lost, RemoteTimeout when nothing came in time.
        """

    def readinto(self, view: memoryview) -> int:
        """Fill the beginning of `view` as `read` would; return how many bytes, 0 at the end."""

    def set_timeout(self, seconds: float) -> None:
        """Set how long a read or write may wait without a byte moving (60 s at first)."""

    def finish(self) -> int | None:
        """Close the input, wait for the end and return the exit status.

        What is still printed meanwhile is dropped. None: ended without a status, by a signal
        (through `openssh`: 255, as ssh says it).
        """

    def stderr_tail(self) -> bytes:
        """Return the last 64 KiB of standard error; complete once the command has ended."""

    def close(self) -> None:
        """Give the channel up; a read or write that waits in another thread raises RemoteError."""


class Host(Protocol):
    """A place where commands run."""

    name: str
    """For messages: the configured host, or "this machine"."""
    logins: int
    """How often a connection was made and a login done."""
    channels: int
    """How many commands were started."""

    def log_in(self) -> None:
        """Log in, unless that was done before."""

    def open(self, command: str) -> Channel:
        """Start a command through the account's login shell; log in first if need be."""

    def close(self) -> None:
        """End all channels and the connection."""


def connect(remote: Remote, inherit: Sequence[int] = ()) -> Host:
    """Return the host of the [remote] section; nothing is sent before its first `open`."""
    if remote.transport == "local":
        from hpc_batch.hosts.local import LocalHost

        return LocalHost(inherit)
    for key, text in (("host", remote.host), ("user", remote.user)):
        if text and not HOST.fullmatch(text):
            raise ConfigError(f"[remote] {key} = {text!r}: such a name is never passed to ssh")
    if remote.transport == "fabric":
        from hpc_batch.hosts.fabric_host import FabricHost

        return FabricHost(remote)
    if remote.transport == "openssh":
        from hpc_batch.hosts.openssh import OpenSSHHost

        return OpenSSHHost(remote, inherit)
    raise ConfigError(
        f"[remote] transport = {remote.transport}: it is one of local, fabric, openssh"
    )
