"""Whether the network lets a connection through, before anybody logs in.

`first_hop` says where the first connection of a login goes: the host of the configuration, or the
first host that is jumped through, as ~/.ssh/config and /etc/ssh/ssh_config resolve their names.
`knock` connects there and reads the line by which an SSH server shows itself.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import paramiko

from hpc_batch.errors import ConfigError, Unreachable
from hpc_batch.hosts.line import dial

if TYPE_CHECKING:
    from hpc_batch.config import Remote

SSH_PORT = "22"


def first_hop(remote: Remote) -> tuple[str, int] | None:
    """Return the address and port of the first connection; None: a ProxyCommand makes it.

    Raises ConfigError when a file of ssh's cannot be read.
    """
    settings = _settings()
    found = settings.lookup(str(remote.host))
    jumps = remote.proxy_jump or found.get("proxyjump", "none")
    if jumps.lower() != "none":
        host, port = _parts(jumps.split(",")[0])
        found = settings.lookup(host)
        return str(found["hostname"]), int(port or found.get("port", SSH_PORT))
    if found.get("proxycommand", "none").lower() != "none":
        return None
    return str(found["hostname"]), remote.port or int(found.get("port", SSH_PORT))


def knock(address: tuple[str, int], seconds: float) -> str:
    """Return how the SSH server at an address shows itself. Raises Unreachable."""
    host, port = address
    try:
        with dial(host, port, seconds) as wire:
            wire.settimeout(seconds)
            greeting = wire.recv(255).split(b"\n")[0]
    except OSError as error:
        reason = (error.strerror or str(error) or "no answer").lower()
        raise Unreachable(
            f"{host} (port {port}) cannot be reached: {reason}",
            "look at [remote] host and port, at firewalls, and whether the cluster is up",
        ) from error
    if not greeting.startswith(b"SSH-"):
        raise Unreachable(
            f"{host} (port {port}) answers, and is no SSH server",
            "look at [remote] host and port",
        )
    return greeting.decode("ascii", "backslashreplace").strip()


def _parts(jump: str) -> tuple[str, str]:
    """Return host and port of user@host:port; the port may be missing, an IPv6 host in brackets."""
    place = jump.strip().rpartition("@")[2]
    found = re.fullmatch(r"\[(.+)\](?::([0-9]+))?|([^:]*)(?::([0-9]+))?", place)
    if found is None:
        return place, ""
    return found[1] or found[3], found[2] or found[4] or ""


def _settings() -> paramiko.SSHConfig:
    settings = paramiko.SSHConfig()
    for path in (Path.home() / ".ssh/config", Path("/etc/ssh/ssh_config")):
        try:
            with open(path, encoding="utf-8") as file:
                settings.parse(file)
        except FileNotFoundError:
            continue
        except (paramiko.SSHException, OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: {error}") from error
    return settings
