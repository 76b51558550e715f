"""A real sshd on a free loopback port, with keys of its own, for tests.

    with sshd.running(tmp_path) as server:
        host = hosts.connect(server.remote("fabric"))
        print(server.logins, server.fingerprint)

Everything lies in one folder: host keys, the user's key and the same key under a passphrase, an
authorized_keys, a known_hosts and the log (DEBUG1, so that a test can see whether anyone tried to
authenticate). The account is the one that runs the tests. `options` are further lines of
sshd_config; `home` gives the account another home folder, so that a test can write a chatty .bashrc
there: sshd's `SetEnv HOME=…`, which bash honours.

Connections have sessions of their own, so they are ended one by one through the process tree below
the sshd that was started here.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from process_tree import descendants

from hpc_batch.config import Remote

PROGRAM = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", ""))
MISSING = "" if PROGRAM and shutil.which("ssh-keygen") else "needs sshd and ssh-keygen"
"""Words for a skip; empty where tests can run."""

PASSPHRASE = "pa$5 phrase%with 'all'; # kinds"


@dataclass(frozen=True)
class Sshd:
    """A running sshd."""

    folder: Path
    port: int
    pid: int
    user: str

    @property
    def key(self) -> Path:
        """Return the user's private key, without passphrase."""
        return self.folder / "key"

    @property
    def locked_key(self) -> Path:
        """Return the same key, under PASSPHRASE."""
        return self.folder / "locked_key"

    @property
    def stranger_key(self) -> Path:
        """Return a key that the account does not accept."""
        return self.folder / "stranger_key"

    @property
    def known_hosts(self) -> Path:
        """Return a known_hosts file that knows this server at its port."""
        return self.folder / "known_hosts"

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint of the ed25519 host key: SHA256:…"""
        return fingerprint(self.folder / "host_ed25519.pub")

    @property
    def log(self) -> str:
        """Return what sshd has logged so far."""
        return (self.folder / "log").read_text(errors="replace")

    @property
    def logins(self) -> int:
        """Return how many logins succeeded so far."""
        return self.log.count("Accepted publickey")

    @property
    def attempts(self) -> int:
        """Return how many requests to authenticate came so far."""
        return self.log.count("userauth-request for user")

    def remote(self, transport: str, **changes: Any) -> Remote:
        """Return the [remote] settings that reach this server; `changes` replaces any."""
        settings: dict[str, Any] = {
            "transport": transport,
            "host": "127.0.0.1",
            "port": self.port,
            "user": self.user,
            "key_file": self.key,
            "known_hosts": self.known_hosts,
            "connect_timeout": 20,
        }
        return Remote(**{**settings, **changes})

    def section(self, transport: str) -> str:
        """Return the same settings as a [remote] section of an .ini file."""
        remote = self.remote(transport)
        keys = ("transport", "host", "port", "user", "key_file", "known_hosts")
        lines = [f"{key} = {getattr(remote, key)}" for key in keys]
        return "\n".join(["[remote]", *lines, ""])


def fingerprint(public_key: Path) -> str:
    """Return the SHA256 fingerprint of a public key file."""
    text = subprocess.check_output(["ssh-keygen", "-lf", str(public_key)], text=True)
    return text.split()[1]


def make_key(path: Path, *, kind: str = "ed25519", passphrase: str = "") -> Path:
    """Make a key pair and return the private key's path."""
    words = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", path.name, "-f", str(path)]
    subprocess.run(words, check=True)
    return path


def known_hosts_line(name: str, public_key: Path) -> str:
    """Return the line of a known_hosts file that gives `name` this key."""
    return f"{name} {' '.join(public_key.read_text().split()[:2])}\n"


@contextlib.contextmanager
def running(folder: Path, options: Sequence[str] = (), home: Path | None = None) -> Iterator[Sshd]:
    """Run an sshd in `folder` for the duration of the block."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("ed25519", "ecdsa"):
        make_key(folder / f"host_{kind}", kind=kind)
    make_key(folder / "key")
    make_key(folder / "stranger_key")
    shutil.copy(folder / "key", folder / "locked_key")
    words = ["ssh-keygen", "-q", "-p", "-P", "", "-N", PASSPHRASE, "-f", str(folder / "locked_key")]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    shutil.copy(folder / "key.pub", folder / "authorized_keys")
    lines = list(options)
    if home is not None:
        lines.append(f"SetEnv HOME={home}")
    process, port = _start(folder, lines)
    lines = [
        known_hosts_line(f"[127.0.0.1]:{port}", folder / f"host_{kind}.pub")
        for kind in ("ed25519", "ecdsa")
    ]
    (folder / "known_hosts").write_text("".join(lines))
    try:
        yield Sshd(folder, port, process.pid, getpass.getuser())
    finally:
        _stop(process)


def _start(folder: Path, options: Sequence[str]) -> tuple[subprocess.Popen[bytes], int]:
    """Start sshd on a free port; another process may take the port first, so try a few."""
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    for _ in range(5):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        (folder / "sshd_config").write_text(_settings(folder, port, options))
        process = subprocess.Popen(
            [str(PROGRAM), "-D", "-f", str(folder / "sshd_config"), "-E", str(folder / "log")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        if _listens(process, port):
            return process, port
        _, complaint = process.communicate()
    raise RuntimeError(f"sshd does not start: {complaint.decode()} {(folder / 'log').read_text()}")


def _settings(folder: Path, port: int, options: Sequence[str]) -> str:
    # The first value of a keyword counts, so `options` come first.
    lines = [
        *options,
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {folder}/host_ed25519",
        f"HostKey {folder}/host_ecdsa",
        f"AuthorizedKeysFile {folder}/authorized_keys",
        "PidFile none",
        "StrictModes no",
        "UsePAM no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin prohibit-password",
        "MaxSessions 40",
        "MaxStartups 100",
        "PrintLastLog no",
        "LogLevel DEBUG1",
    ]
    return "\n".join(lines) + "\n"


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as probe:
                return probe.recv(4) == b"SSH-"
        except OSError:
            time.sleep(0.02)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    for pid in [process.pid, *descendants(process.pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    try:
        process.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
