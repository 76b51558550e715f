"""The command line of the system's ssh: every option it is given, and why.

Options on the command line win over ~/.ssh/config, which still decides what they leave open:
aliases, users, ports, identity files, jump hosts. A jump host that is named here gets the same
options; ssh's own -J would not pass them on.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpc_batch.config import Remote

KEEPALIVE_S = 20
DEFAULT_CIPHERS = frozenset(
    ("chacha20-poly1305@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
    + ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
)
"""What ssh offers where nobody has said anything else, since OpenSSH 6.7."""

KEEPALIVES = 3
"""A master whose line is dead ends after KEEPALIVE_S * KEEPALIVES = 60 s."""


def master(remote: Remote, socket: Path, pinned: Path | None, passphrase: bool) -> list[str]:
    """Return the arguments of a master that offers `socket` once it has logged in.

    `pinned` is a known_hosts file with the one key the host may have, under the alias `pinned`;
    `passphrase`: one is there to be asked for.
    """
    words = ["-M", "-N", "-T", "-S", str(socket), *_login(remote, passphrase)]
    words += _option("ControlPersist", "no")
    if pinned:
        words += _option("HostKeyAlias", "pinned")
        words += _known_hosts(pinned)
    else:
        words += _known_hosts(remote.known_hosts)
    if remote.port:
        words += ["-p", str(remote.port)]
    if remote.user:
        words += ["-l", remote.user]
    if remote.proxy_jump and remote.proxy_jump.lower() != "none":
        words += _option("ProxyCommand", _jump(remote, passphrase))
    return [*words, "--", str(remote.host)]


def ciphers(settled: str) -> list[str]:
    """Return the option that prefers AES-GCM, where the list that ssh has settled on is its own.

    It takes half the time of ChaCha20 wherever the processor knows AES. A list that a user or an
    administrator has written stays as it is.
    """
    names = settled.split(",")
    if set(names) != DEFAULT_CIPHERS:
        return []
    return _option("Ciphers", ",".join(sorted(names, key=lambda name: "-gcm@" not in name)))


def session(socket: Path, command: str) -> list[str]:
    """Return the arguments of a client that runs a command through a master.

    Without its master a client would log in by itself; `ProxyCommand=false` keeps it from that.
    """
    words = ["-F", "none", "-T", "-S", str(socket)]
    words += _option("ProxyCommand", "false") + _option("BatchMode", "yes")
    return [*words, *_option("LogLevel", "ERROR"), "--", "master", command]


def _login(remote: Remote, passphrase: bool) -> list[str]:
    settings = {
        # Older clients do not know these; they need not refuse them.
        "IgnoreUnknown": "RemoteCommand,UpdateHostKeys,ForkAfterAuthentication",
        # Nobody is there to ask. Batch mode would not ask for the passphrase either; without it,
        # nothing else is asked for: no password, no answer to an unknown host key.
        "BatchMode": "no" if passphrase else "yes",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "NumberOfPasswordPrompts": "1",
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "ForwardAgent": "no",
        "ForwardX11": "no",
        "ClearAllForwardings": "yes",
        "PermitLocalCommand": "no",
        "RemoteCommand": "none",
        "ForkAfterAuthentication": "no",
        "ConnectTimeout": str(int(remote.connect_timeout)),
        "ConnectionAttempts": "1",
        "ServerAliveInterval": str(KEEPALIVE_S),
        "ServerAliveCountMax": str(KEEPALIVES),
        "Compression": "no",
        "LogLevel": "INFO",
    }
    words = [word for key, value in settings.items() for word in _option(key, value)]
    if remote.key_file is not None:
        words += _option("IdentityFile", _path(remote.key_file)) + _option("IdentitiesOnly", "yes")
    return words


def _known_hosts(path: Path | None) -> list[str]:
    if path is None:
        return []
    return _option("UserKnownHostsFile", _path(path)) + _option("GlobalKnownHostsFile", "/dev/null")


def _jump(remote: Remote, passphrase: bool) -> str:
    """Return the ProxyCommand that goes through the jump hosts, one ssh inside the other."""
    inner = ""
    for jump in str(remote.proxy_jump).split(","):
        user, _, host = jump.strip().rpartition("@")
        name, colon, port = host.rpartition(":")
        words = ["ssh", *_login(remote, passphrase), *_known_hosts(remote.known_hosts)]
        words += ["-l", user] if user else []
        words += ["-p", port] if colon else []
        words += _option("ProxyCommand", inner) if inner else []
        quoted = " ".join(shlex.quote(word) for word in words)
        # Percent signs are for the ssh that runs this; only the last two are meant for it.
        inner = f"{quoted.replace('%', '%%')} -W '[%h]:%p' -- {shlex.quote(name or host)}"
    return inner


def _path(path: Path) -> str:
    """Quote a path as ssh_config wants it: in quotes, and no tokens."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"'


def _option(key: str, value: str) -> list[str]:
    return ["-o", f"{key}={value}"]
