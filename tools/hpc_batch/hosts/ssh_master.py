"""The ssh process that logs in and carries every channel, and its private folder.

It must not outlive us, not even when we are killed. So it is started by a thread that stays with
it to its end, through a small Python program that asks the kernel for a signal at the end of that
thread (prctl(2), PR_SET_PDEATHSIG) and becomes ssh. While that one starts, ssh is asked for what it
has settled on; the command line that comes of it is read from a pipe. ssh closes every descriptor
it does not know, so the submitter's lock is given to it as its standard input, which a master
without a session never reads.

A passphrase reaches ssh by SSH_ASKPASS: a program in the private folder that prints a file. Both
exist for the seconds of the login. What went wrong in a login is read from ssh's stderr (FAILURES).
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpc_batch import threads
from hpc_batch.errors import (
    AuthenticationError,
    ConfigError,
    HostKeyError,
    RemoteError,
    Unreachable,
)
from hpc_batch.hosts import credentials, private_folder, ssh_options
from hpc_batch.hosts.pipes import END_S, PipeChannel, last_line
from hpc_batch.hosts.tail import Tail
from hpc_cluster import files

if TYPE_CHECKING:
    from hpc_batch.config import Remote
    from hpc_batch.hosts.known_hosts import HostKey

LEASH = (
    "import ctypes, os, signal, sys;"
    "ctypes.CDLL(None).prctl(1, signal.SIGTERM);"
    "words = open(int(sys.argv[2]), 'rb').read().split(b'\\0');"
    "os.getppid() == int(sys.argv[1]) and words[1:] and os.execvp(words[0], words)"
)
"""Become a program that ends with its parent; 1 is PR_SET_PDEATHSIG. A parent that has ended before
that is told by its number, and one that had nothing to say by an empty pipe."""

LOOK_S = 0.002
"""How often the socket of a master is looked for."""
SSH_FAILED = 255
"""ssh's exit status for its own failures."""


class Master:
    """An ssh process that has logged in, and its private folder."""

    def __init__(self, remote: Remote, inherit: Sequence[int]) -> None:
        self.remote = remote
        self.inherit = inherit
        self.ended = threading.Event()
        self._settled: dict[str, str] | None = None
        self._stderr = b""
        self._environment = dict(os.environ)
        self._process: subprocess.Popen[bytes] | None = None
        self._started = threading.Event()
        self._folder = private_folder.make()
        self._socket = self._folder / private_folder.SOCKET

    def log_in(self) -> None:
        """Start ssh and wait until it has logged in; raises what its stderr says otherwise."""
        try:
            self._start()
            limit = time.monotonic() + self.remote.connect_timeout
            while not self._socket.exists():
                if self.ended.wait(LOOK_S):
                    raise self._failure()
                if time.monotonic() > limit:
                    raise Unreachable(
                        f"{self.remote.host}: no login within {self.remote.connect_timeout:g} s"
                    )
        except BaseException:
            self.close()
            raise
        for name in ("askpass", "passphrase"):
            files.unlink(str(self._folder / name))

    def channel(self, command: str) -> PipeChannel:
        """Run a command through this master."""
        words = ["ssh", *ssh_options.session(self._socket, command)]
        return PipeChannel(words, verdict=self._verdict)

    def close(self) -> None:
        """End ssh and remove the folder."""
        if self._process is not None:
            for number in (signal.SIGTERM, signal.SIGKILL):
                if not self.ended.is_set():
                    self._process.send_signal(number)
                    self.ended.wait(END_S)
        private_folder.remove(self._folder)

    def _start(self) -> None:
        remote = self.remote
        passphrase = credentials.passphrase(remote)
        if passphrase is not None:
            self._environment.update(self._askpass(passphrase))
        pinned = self._pin(remote.host_key) if remote.host_key else None
        arguments = ssh_options.master(remote, self._socket, pinned, passphrase is not None)
        reader, writer = os.pipe()
        try:
            threads.start(self._stay, "ssh", reader)
        except RemoteError:
            os.close(reader)
            os.close(writer)
            raise
        try:
            words = ["ssh", *self._ciphers(), *arguments]
            with contextlib.suppress(BrokenPipeError):
                # RACE: none; it could not be started, as is told below.
                os.write(writer, b"\0".join(map(os.fsencode, words)))
        finally:
            os.close(writer)
            self._started.wait()

    def _stay(self, reader: int) -> None:
        """Start ssh and stay with it to its end: it ends with this thread, however that ends."""
        leash = [sys.executable, "-I", "-S", "-c", LEASH, str(os.getpid()), str(reader)]
        try:
            process = subprocess.Popen(
                leash,
                pass_fds=(reader,),
                stdin=self.inherit[0] if self.inherit else subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=self._environment,
                start_new_session=True,
            )
        except OSError as error:
            self._stderr = f"ssh cannot be started: {error.strerror}".encode()
            self.ended.set()
            self._started.set()
            return
        finally:
            os.close(reader)
        assert process.stderr
        try:
            tail = Tail(process.stderr.read1)  # type: ignore[attr-defined]
        except RemoteError as error:
            process.kill()
            process.wait()
            process.stderr.close()
            self._stderr = f"ssh cannot be started: {error}".encode()
            self.ended.set()
            self._started.set()
            return
        self._process = process
        self._started.set()
        process.wait()
        self._stderr = tail.settled()
        self.ended.set()
        tail.join()
        process.stderr.close()

    def _askpass(self, passphrase: str) -> dict[str, str]:
        """Write the program that answers ssh's question for a passphrase, and no other."""
        secret, program = self._folder / "passphrase", self._folder / "askpass"
        files.write_new(str(secret), passphrase.encode() + b"\n", 0o600)
        lines = f"#!/bin/sh\ncase $1 in *passphrase*) exec cat '{secret}' ;; esac\nexit 1\n"
        files.write_new(str(program), lines.encode(), 0o700)
        # Before 8.4 ssh asks a program only where there is a DISPLAY and no terminal.
        display = os.environ.get("DISPLAY", ":0")
        return {"SSH_ASKPASS": str(program), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": display}

    def _pin(self, pin: str) -> Path:
        """Write a known_hosts file with the pinned key, if the host has it."""
        import base64

        from hpc_batch.hosts import known_hosts  # what it loads would keep every other login

        host, port, direct = self._address()
        if not direct:
            raise HostKeyError(
                f"[remote] host_key cannot be checked for {self.remote.host} behind a jump host",
                "put the host's key into known_hosts instead, or set transport = fabric",
            )
        keys = _scan(host, port, self.remote.connect_timeout)
        if not keys:
            raise Unreachable(f"{self.remote.host} (port {port}) shows no host key")
        match = [key for key in keys if key.fingerprint == pin.rstrip("=")]
        if not match:
            seen = ", ".join(map(str, keys))
            raise known_hosts.not_pinned(known_hosts.names(host, port)[0], seen, pin)
        path = self._folder / "known_hosts"
        line = f"pinned {match[0].kind} {base64.b64encode(match[0].blob).decode()}\n"
        files.write_new(str(path), line.encode())
        return path

    def _ciphers(self) -> list[str]:
        try:
            return ssh_options.ciphers(self._settings().get("ciphers", ""))
        except ConfigError:
            return []  # the master says what is wrong

    def _settings(self) -> dict[str, str]:
        """Return what ssh settles on from its configuration and our options; asked once."""
        if self._settled is None:
            self._settled = self._ask_settings()
        return self._settled

    def _ask_settings(self) -> dict[str, str]:
        words = ["ssh", "-G", *ssh_options.master(self.remote, self._socket, None, False)]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if done.returncode:
            raise ConfigError(f"ssh -G {self.remote.host}: {last_line(done.stderr)}")
        lines = (line.partition(" ") for line in done.stdout.decode().splitlines())
        return {key: value for key, _, value in lines}

    def _address(self) -> tuple[str, int, bool]:
        """Return where ssh would go: host and port, and whether directly."""
        settings = self._settings()
        through = (settings.get(key, "none") for key in ("proxyjump", "proxycommand"))
        direct = all(way == "none" for way in through)
        return settings["hostname"], int(settings["port"]), direct

    def _failure(self) -> RemoteError:
        """Return the error for a master that ended instead of logging in."""
        text = self._stderr.decode("utf-8", "replace")
        for pattern, make in FAILURES:
            if re.search(pattern, text):
                return make(self, text)
        reason = last_line(self._stderr) or "ssh ended without a word"
        return Unreachable(f"{self.remote.host} cannot be reached: {reason}")

    def _host_key_failure(self, text: str) -> RemoteError:
        from hpc_batch.hosts import known_hosts

        host, port, direct = self._address()
        name = known_hosts.names(host, port)[0]
        seen = re.search(r"SHA256:[A-Za-z0-9+/]{43}", text)
        shown = seen.group() if seen else "another key"
        if "marked as revoked" in text:
            return known_hosts.revoked(name, shown)
        if "IDENTIFICATION HAS CHANGED" in text:
            return known_hosts.changed(name, shown)
        asked = re.search(r"No (\S+) host key is known for (\S+)", text)
        kind, name = asked.groups() if asked else ("", name)
        keys = _scan(host, port, self.remote.connect_timeout) if direct else []
        matching = [key for key in keys if kind.lower() in key.kind]
        return known_hosts.unknown(name, matching[0] if matching else None, (host, port))

    def _key_failure(self, text: str) -> RemoteError:
        key = self.remote.key_file
        missing = re.search(r"no such identity: (.*)", text)
        if missing:
            return AuthenticationError(f"[remote] key_file {missing.group(1)}")
        if "bad permissions" in text:
            return AuthenticationError(
                f"others may read the key {key}, so ssh does not use it", f"chmod 600 {key}"
            )
        if "ssh_askpass: exec" in text:
            return AuthenticationError(
                f"{self._folder} may not hold programs, so ssh cannot ask for the passphrase",
                "set TMPDIR to a folder of another file system",
            )
        complaint = self._unlocking() if key else ""
        if "incorrect passphrase" in complaint:
            given = "SSH_ASKPASS" in self._environment
            return credentials.wrong_passphrase(key) if given else credentials.locked(key)
        if complaint:
            return AuthenticationError(f"ssh cannot use the key: {complaint}")
        methods = re.search(r"Permission denied \((.*)\)", text)
        return credentials.refused(
            self.remote, str(self.remote.host), methods.group(1) if methods else ""
        )

    def _unlocking(self) -> str:
        """Return what ssh-keygen says against the key; ssh itself says nothing about it."""
        words = ["ssh-keygen", "-y", "-f", str(self.remote.key_file)]
        if "SSH_ASKPASS" not in self._environment:
            words += ["-P", ""]
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=self._environment,
            start_new_session=True,
            check=False,
        )
        return last_line(done.stderr) if done.returncode else ""

    def _option_failure(self, text: str) -> RemoteError:
        return RemoteError(f"ssh refuses its configuration: {last_line(text.encode())}")

    def _verdict(self, status: int | None, stderr: bytes) -> RemoteError | None:
        """Tell a lost connection and a refused channel from a command's own end with 255."""
        if status != SSH_FAILED:
            return None
        if b"mux_client_request_session: session request failed" in stderr:
            return RemoteError(
                f"{self.remote.host} refuses a further channel",
                "MaxSessions of the host's sshd_config must allow some",
            )
        # A master closes its socket before its clients learn of its end.
        if private_folder.listens(self._socket):
            return None
        self.ended.wait(END_S)
        return RemoteError("the connection is lost", last_line(self._stderr))


FAILURES = (
    (r"Host key verification failed", Master._host_key_failure),
    (r"Permission denied|Too many authentication failures|Load key", Master._key_failure),
    (r"Bad configuration option|Bad owner or permissions|keyword .* extra", Master._option_failure),
)
"""What ssh's stderr holds, and what makes the error of it; the first that fits counts."""


def _scan(host: str, port: int, timeout_s: float) -> list[HostKey]:
    """Return the keys a host shows to everyone; nothing if it does not answer."""
    import base64

    from hpc_batch.hosts.known_hosts import HostKey

    words = ["ssh-keyscan", "-T", str(int(timeout_s)), "-p", str(port), "--", host]
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = (line.split() for line in done.stdout.decode("utf-8", "replace").splitlines())
    return [
        HostKey(row[1], base64.b64decode(row[2]))
        for row in rows
        if len(row) == 3 and not row[0].startswith("#")
    ]
