"""Logging in with fabric: the host, and the hosts that are jumped through before it.

fabric reads ~/.ssh/config (aliases, ports, identity files, ProxyJump, ProxyCommand) and connects.
What differs from its defaults:

- Its AutoAddPolicy takes any host key. It is replaced, on jump hosts too, by a check against
  known_hosts or the pinned fingerprint, which runs before anything that authenticates.
- With key_file only that key is offered; without it the agent's and the default ones.
- All waits of a login share one deadline: a timer closes the connections under them.
- Jump hosts are visited in the order they are written in, as ssh does.
- AES-GCM first and a larger window: twice the throughput of paramiko's own choice (800 instead of
  400 MB/s down, 590 instead of 275 MB/s up, on loopback with paramiko 5.1).
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fabric
import paramiko

from hpc_batch.errors import ConfigError, HostKeyError, RemoteError, Unreachable
from hpc_batch.hosts import credentials, known_hosts, private_key
from hpc_batch.hosts.known_hosts import HostKey, KnownHosts
from hpc_batch.hosts.line import Line, deadline, dial

if TYPE_CHECKING:
    from hpc_batch.config import Remote

WINDOW_BYTES = 16 << 20
"""What the far end may send ahead: 30 ms of round trip at 500 MB/s."""
PACKET_BYTES = 128 << 10
KEEPALIVE_S = 20
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
KEY_ALGORITHMS = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
"""The algorithms by which a host shows a key of a type, where they have other names."""


class Login:
    """How to log in to the host of the configuration."""

    def __init__(self, remote: Remote) -> None:
        """Read keys, known hosts and ~/.ssh/config; nothing is sent yet."""
        self.remote = remote
        self.known = KnownHosts(_known_hosts_files(remote))
        self.passphrase = credentials.passphrase(remote)
        self.key = private_key.load(remote.key_file, self.passphrase) if remote.key_file else None
        self.config = fabric.Config(lazy=True)
        try:
            self.config.load_ssh_config()
        except (paramiko.SSHException, OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"~/.ssh/config: {error}") from error

    def run(self) -> list[fabric.Connection]:
        """Log in and return the connections, the host's own last.

        A host has keys of several types and shows the one that is asked for first. If that is not
        the pinned one, the others are asked for, one connection each, before the host is refused.
        """
        mismatch: OtherKey | None = None
        refused: list[str] = []
        while True:
            try:
                return self._attempt(refused)
            except OtherKey as error:
                mismatch = error
                refused += KEY_ALGORITHMS.get(error.key.kind, (error.key.kind,))
            except NoCommonAlgorithm:
                if mismatch is None:
                    raise
                raise mismatch from None

    def _attempt(self, refused: Sequence[str]) -> list[fabric.Connection]:
        chain = self._chain()

        def abandon() -> None:
            for connection in chain:
                connection.client.close()

        with deadline(self.remote.connect_timeout, abandon) as expired:
            try:
                for connection in chain[:-1]:
                    self._open(connection, None, ())
                self._open(chain[-1], self.remote.host_key, refused)
            except RemoteError as error:
                abandon()
                if expired.is_set():
                    raise Unreachable(
                        f"{self.remote.host}: no login within {self.remote.connect_timeout:g} s"
                    ) from error
                raise
        return chain

    def _chain(self) -> list[fabric.Connection]:
        """Return the connections to make: jump hosts from near to far, then the host."""
        remote = self.remote
        settings = self.config.base_ssh_config.lookup(remote.host)
        jumps = remote.proxy_jump or settings.get("proxyjump", "none")
        chain: list[fabric.Connection] = []
        for jump in () if jumps.lower() == "none" else jumps.split(","):
            chain.append(self._connection(jump.strip(), gateway=chain[-1] if chain else False))
        # None lets fabric find the ProxyCommand of ~/.ssh/config, False keeps it from looking.
        command = settings.get("proxycommand", "none").lower() != "none"
        gateway = chain[-1] if chain else (None if command else False)
        host = self._connection(remote.host, gateway=gateway, user=remote.user, port=remote.port)
        return [*chain, host]

    def _connection(self, host: str | None, **settings: Any) -> fabric.Connection:
        # The timer of `deadline` ends every wait; paramiko's own must not end one sooner.
        patience_s = self.remote.connect_timeout + 1
        options: dict[str, Any] = {
            "banner_timeout": patience_s,
            "auth_timeout": patience_s,
            "compress": False,
        }
        if self.key is not None:
            options.update(pkey=self.key, allow_agent=False, look_for_keys=False)
        elif self.passphrase is not None:
            options["passphrase"] = self.passphrase
        connection = fabric.Connection(
            host, config=self.config, forward_agent=False, connect_kwargs=options, **settings
        )
        if self.key is not None:
            # fabric adds the IdentityFiles of ~/.ssh/config.
            connection.connect_kwargs.pop("key_filename", None)
        return connection

    def _open(self, connection: fabric.Connection, pin: str | None, refused: Sequence[str]) -> None:
        """Connect and log in to one host of the chain; translate what paramiko raises."""
        check = KeyCheck(connection, self.known, pin)
        connection.client.set_missing_host_key_policy(check)
        kinds = () if pin else self.known.kinds(*check.where)
        connection.connect_kwargs["transport_factory"] = functools.partial(
            _make_transport, kinds, refused, self.remote.connect_timeout + 1
        )
        try:
            if not connection.gateway:
                connection.connect_kwargs["sock"] = dial(
                    connection.host, connection.port, self.remote.connect_timeout
                )
            connection.open()
            connection.client.get_transport().set_keepalive(KEEPALIVE_S)
        except RuntimeError as error:
            # RACE: none; paramiko has a thread for each connection, and the machine has no room.
            if not connection.gateway:
                connection.connect_kwargs["sock"].close()
            raise _unreachable(connection, error) from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            transport = connection.client.get_transport()
            if check.passed.is_set() and transport is not None and transport.is_active():
                raise self._refusal(connection, error) from error
            raise _unreachable(connection, error) from error

    def _refusal(self, connection: fabric.Connection, error: BaseException) -> RemoteError:
        """Return the error for a login that failed on a live connection."""
        where = connection.original_host
        if isinstance(error, paramiko.BadAuthenticationType):
            return credentials.refused(self.remote, where, ", ".join(error.allowed_types))
        if isinstance(error, paramiko.PasswordRequiredException):
            return credentials.locked("in ~/.ssh")
        return credentials.refused(self.remote, where)


class OtherKey(HostKeyError):
    """The host shows a key that is not the pinned one; it may have that one too."""

    def __init__(self, error: HostKeyError, key: HostKey) -> None:
        super().__init__(str(error), error.hint)
        self.key = key


class NoCommonAlgorithm(Unreachable):
    """The host knows none of the algorithms that paramiko speaks, or may still ask for."""


class KeyCheck(paramiko.MissingHostKeyPolicy):
    """Accept a known or the pinned host key, raise HostKeyError for any other.

    paramiko is given no known keys, so it asks about every key, after the key exchange and before
    it authenticates.
    """

    def __init__(self, connection: fabric.Connection, known: KnownHosts, pin: str | None) -> None:
        self.address: tuple[str, int] = (connection.host, connection.port)
        alias: str | None = connection.ssh_config.get("hostkeyalias")
        self.where = (alias, known_hosts.SSH_PORT) if alias else self.address
        self.known = known
        self.pin = pin
        self.passed = threading.Event()

    def missing_host_key(
        self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey
    ) -> None:
        """Judge a key that a host has shown."""
        shown = HostKey(key.get_name(), key.asbytes())
        name = known_hosts.names(*self.where)[0]
        if self.pin:
            if self.pin.rstrip("=") != shown.fingerprint:
                raise OtherKey(known_hosts.not_pinned(name, str(shown), self.pin), shown)
        else:
            judgement = self.known.judge(*self.where, shown)
            if judgement == "unknown":
                raise known_hosts.unknown(name, shown, self.address)
            if judgement == "changed":
                raise known_hosts.changed(name, str(shown))
            if judgement == "revoked":
                raise known_hosts.revoked(name, str(shown))
        self.passed.set()


def _make_transport(
    kinds: Iterable[str], refused: Sequence[str], patience_s: float, wire: Any, **settings: Any
) -> paramiko.Transport:
    """Make a transport that asks first for host keys of the known kinds, never for refused ones."""
    transport = paramiko.Transport(
        Line(wire),  # type: ignore[arg-type]
        default_window_size=WINDOW_BYTES,
        default_max_packet_size=PACKET_BYTES,
        **settings,
    )
    transport.handshake_timeout = patience_s
    options = transport.get_security_options()
    options.ciphers = _first(CIPHERS, options.ciphers)
    wanted = [name for kind in kinds for name in KEY_ALGORITHMS.get(kind, (kind,))]
    key_types = _first(wanted, options.key_types)
    options.key_types = tuple(kind for kind in key_types if kind not in refused)
    return transport


def _first(wanted: Iterable[str], offered: Sequence[str]) -> tuple[str, ...]:
    """Return what is offered, the wanted ones in front."""
    front = [name for name in dict.fromkeys(wanted) if name in offered]
    return (*front, *(name for name in offered if name not in front))


def _unreachable(connection: fabric.Connection, error: BaseException) -> Unreachable:
    where = f"{connection.original_host} (port {connection.port})"
    if isinstance(error, paramiko.ssh_exception.IncompatiblePeer):
        return NoCommonAlgorithm(
            f"{where} and paramiko have no algorithm in common: {error}", "try transport = openssh"
        )
    reason = getattr(error, "strerror", None) or str(error) or "the connection was closed"
    return Unreachable(f"{where} cannot be reached: {reason}")


def _known_hosts_files(remote: Remote) -> list[Path]:
    if remote.known_hosts is not None:
        return [remote.known_hosts]
    folder = Path.home() / ".ssh"
    system = Path("/etc/ssh")
    return [folder / "known_hosts", folder / "known_hosts2"] + [
        system / name for name in ("ssh_known_hosts", "ssh_known_hosts2")
    ]
