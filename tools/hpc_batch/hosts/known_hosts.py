"""Known host keys, as sshd(8) describes the file: which keys a host may show.

paramiko's own reader knows neither patterns (`*.cluster.edu`) nor `@revoked`, so the fabric
transport judges by this one. `@cert-authority` lines are left out: paramiko does not take host
certificates.

A host is looked up as `name`, or `[name]:port` where the port is not 22; a key that is known for
the bare name is good for other ports too, as with ssh.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hpc_batch.errors import HostKeyError, RemoteError
from hpc_cluster import files

Judgement = Literal["known", "unknown", "changed", "revoked"]

SSH_PORT = 22


@dataclass(frozen=True)
class HostKey:
    """A public host key."""

    kind: str
    """The type's name in SSH, such as ssh-ed25519."""
    blob: bytes
    """The key as it travels."""

    @property
    def fingerprint(self) -> str:
        """Return SHA256:… as ssh-keygen -l prints it."""
        digest = hashlib.sha256(self.blob).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    def __str__(self) -> str:
        return f"{self.kind} {self.fingerprint}"


@dataclass(frozen=True)
class Entry:
    """One line of the file."""

    marker: str
    """"", @revoked or @cert-authority."""
    names: str
    """Comma-separated patterns, or one hashed name."""
    key: HostKey

    def is_for(self, name: str) -> bool:
        """Tell whether this line speaks of a host."""
        if self.names.startswith("|1|"):
            return _hashed(self.names, name)
        patterns = self.names.lower().split(",")
        if any(p.startswith("!") and _fits(p[1:], name) for p in patterns):
            return False
        return any(_fits(p, name) for p in patterns)


class KnownHosts:
    """All entries of some known_hosts files."""

    def __init__(self, paths: Iterable[Path]) -> None:
        """Read the files; one that is not there holds no keys.

        Raises HostKeyError when a file is there and cannot be read, RemoteError if that may pass.
        """
        self.paths = tuple(paths)
        self.entries: list[Entry] = []
        for path in self.paths:
            try:
                text = path.read_text(encoding="utf-8", errors="replace")
            except FileNotFoundError:
                continue
            except OSError as error:
                kind = RemoteError if error.errno in files.PASSING else HostKeyError
                raise kind(f"known hosts {path}: {error.strerror}") from error
            self.entries += [entry for entry in map(_parse, text.splitlines()) if entry]

    def kinds(self, host: str, port: int) -> list[str]:
        """Return the types of the keys that are known for a host, as the files order them."""
        entries = (entry for entry in self.entries if entry.marker == "")
        return [e.key.kind for e in entries if any(e.is_for(n) for n in names(host, port))]

    def judge(self, host: str, port: int, key: HostKey) -> Judgement:
        """Say what the files say of a key that a host has shown."""
        wanted = names(host, port)
        ours = [entry for entry in self.entries if any(entry.is_for(name) for name in wanted)]
        if any(entry.marker == "@revoked" and entry.key == key for entry in ours):
            return "revoked"
        plain = [entry for entry in ours if entry.marker == ""]
        if any(entry.key == key for entry in plain):
            return "known"
        return "changed" if any(entry.is_for(wanted[0]) for entry in plain) else "unknown"


def names(host: str, port: int) -> list[str]:
    """Return the names a host is looked up by, the exact one first."""
    host = host.lower()
    return [host] if port == SSH_PORT else [f"[{host}]:{port}", host]


def unknown(name: str, key: HostKey | None, address: tuple[str, int]) -> HostKeyError:
    """Return the error for a host whose key is not known; None: the key was not seen."""
    host, port = address
    shown = f": it shows {key}" if key else ""
    pin = f"; or pin it: host_key = {key.fingerprint} in [remote]" if key else ""
    return HostKeyError(
        f"the host key of {name} is not known{shown}",
        "compare the fingerprint with the one that the cluster publishes, then run "
        f"`ssh -p {port} {host}` once, or add the line of `ssh-keyscan -p {port} {host}` to "
        f"known_hosts{pin}",
    )


def changed(name: str, seen: str) -> HostKeyError:
    """Return the error for a host that shows another key than the known one."""
    return HostKeyError(
        f"the host key of {name} has changed: it shows {seen}, another one is known",
        "somebody may be listening in between. If the cluster's operators confirm the new key, "
        f"forget the old one: ssh-keygen -R '{name}' (-f FILE)",
    )


def not_pinned(name: str, seen: str, pin: str) -> HostKeyError:
    """Return the error for a host that does not show the pinned key."""
    return HostKeyError(
        f"the host key of {name} has changed: it shows {seen}, pinned is {pin}",
        "somebody may be listening in between. If the cluster's operators confirm the new key, "
        "change host_key in [remote]",
    )


def revoked(name: str, seen: str) -> HostKeyError:
    """Return the error for a host that shows a key marked @revoked."""
    return HostKeyError(
        f"the host key of {name} is revoked: it shows {seen}",
        "known_hosts marks it @revoked; ask the cluster's operators for the new key",
    )


def _parse(line: str) -> Entry | None:
    """Return the entry of a line, None for comments and what cannot be understood."""
    words = line.split()
    marker = words.pop(0) if words and words[0].startswith("@") else ""
    if len(words) < 3 or words[0].startswith("#"):
        return None
    try:
        return Entry(marker, words[0], HostKey(words[1], base64.b64decode(words[2])))
    except binascii.Error:
        return None


def _hashed(text: str, name: str) -> bool:
    """Tell whether |1|SALT|HASH is this name (HMAC-SHA1, as ssh-keygen -H writes it)."""
    try:
        _, _, salt, digest = text.split("|")
        made = hmac.new(base64.b64decode(salt), name.encode(), hashlib.sha1).digest()
        return hmac.compare_digest(made, base64.b64decode(digest))
    except (ValueError, binascii.Error):
        return False


def _fits(pattern: str, name: str) -> bool:
    """Match ssh's two wildcards; brackets stand for themselves."""
    expression = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(expression, name) is not None
