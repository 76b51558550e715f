"""The far end as the service host sees it: how it is started, and its two streams.

`command` makes the one shell line that starts `hpc_session` on the cluster. The account's login
shell may be bash, csh or fish, so the line hands everything to /bin/sh in single quotes, and what
any of them would treat specially inside single quotes (newline, quote, backslash, `!`) travels as
octal for printf. Prologue lines of the operator run first, in that same /bin/sh.

`start` opens a channel to that command and reads up to the start marker: logins print banners, and
whatever stands before the marker is not ours. Where the marker does not come, the exit status and
the end of stderr say why, and the error says what the operator can do.

A `Wire` is the channel after the marker: JSON lines, and the bytes of frames between them. Writes
of several threads do not mix, so that a thread can ping while another sends.
"""

from __future__ import annotations

import json
import os
import shlex
import string
import sys
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import hpc_cluster
from hpc_batch.bulk import MOST_BYTES
from hpc_batch.errors import FarEndError, RemoteError, RemoteTimeout, Unreachable

if TYPE_CHECKING:
    from hpc_batch.config import Remote
    from hpc_batch.hosts import Channel, Host

Mode = Literal["serve", "data"]
"""serve: the control channel; data: a channel for frames."""

MARKER = b"\x1eHPC_BATCH "
REFUSAL = b"\x1eHPC_BATCH_ERROR "
"""The far end's first line is one of these and a JSON object; RECORD SEPARATOR is in no banner."""

BANNER_BYTES = 1 << 20
"""So much may stand before the marker."""

LINE_BYTES = 256 << 20
"""No line of the far end is longer."""

ANSWER_S = 90
"""Silence for so long is a broken connection. Greater than ALIVE_S of hpc_cluster.channel (20 s)
several times over: while it works the far end says so."""

PLAIN = frozenset((string.ascii_letters + string.digits + " _./:=,@+-;").encode())
"""Bytes that no shell treats specially within single or double quotes."""

FROM_PACKAGE = (
    "import sys; sys.path.insert(0, {folder!r}); "
    "from hpc_cluster.session import main; sys.exit(main())"
)
"""Starts the far end of this machine's own package, without a checkout and without PYTHONPATH,
which pilots and jobs would inherit."""

HINTS = {
    "ENOSPC": "the cluster's disk is full; jobs wait until there is room",
    "EDQUOT": "the account's quota on the cluster is used up; jobs wait until there is room",
    "bug": "see the far end's traceback on stderr; please report it",
}
"""What an operator can do, by the kind of error that the far end answers with."""


def command(remote: Remote, env: Mapping[str, str], mode: Mode, session: str, instance: str) -> str:
    """Return the line that starts the far end, for the login shell of the account.

    `env` is [hpc_env]: its `workspace` and `scripts` are used. With `transport = local` and no
    checkout at `scripts`, this process's own hpc_cluster is the far end, run by this Python unless
    another one is configured.
    """
    local = remote.transport == "local"
    python = sys.executable if local and remote.python == "python3" else remote.python
    program = os.path.join(env.get("scripts", ""), "hpc_session")
    if local and not os.path.exists(program):
        folder = os.path.dirname(os.path.dirname(os.path.abspath(hpc_cluster.__file__)))
        words = [python, "-c", FROM_PACKAGE.format(folder=folder), mode]
    else:
        words = [python, program, mode]
    words += ["--workspace", env["workspace"], "--session", session, "--instance", instance]
    line = "exec " + " ".join(shlex.quote(word) for word in words)
    return for_any_shell(f"{remote.prologue}\n{line}" if remote.prologue else line)


def for_any_shell(script: str) -> str:
    """Return a command that any login shell understands and that runs `script` in /bin/sh."""
    data = script.encode("utf-8", "surrogateescape")
    if PLAIN.issuperset(data):
        return f"exec /bin/sh -c '{script}'"
    text = "".join(chr(byte) if byte in PLAIN else f"\\0{byte:03o}" for byte in data)
    return f'exec /bin/sh -c \'eval "$(printf %b "{text}")"\''


class Wire:
    """The two streams of a started far end: lines and bytes; raises RemoteError when they break."""

    def __init__(self, channel: Channel, ahead: bytes = b"") -> None:
        self._channel = channel
        self._buffer = bytearray(ahead)
        self._frame = bytearray()
        self._writing = threading.Lock()
        self._wrote = time.monotonic()
        self.started: dict[str, Any] = {}

    def send(self, value: Mapping[str, Any], data: bytes | memoryview = b"") -> None:
        """Send one line, and the bytes that belong to it."""
        line = json.dumps(value).encode("ascii") + b"\n"
        with self._writing:
            if len(data) < 1 << 16:
                self._channel.write(line + bytes(data))
            else:
                self._channel.write(line)
                self._channel.write(data)
            self._wrote = time.monotonic()

    def ping(self, idle_s: float) -> None:
        """Tell the far end that this end lives, if nothing was sent for `idle_s` seconds."""
        if not self._writing.acquire(blocking=False):
            return  # another thread is sending right now, and that says it as well
        try:
            if time.monotonic() - self._wrote >= idle_s:
                self._channel.write(b'{"ping":1}\n')
                self._wrote = time.monotonic()
        except RemoteError:
            return  # whoever waits for an answer on this wire hears of it
        finally:
            self._writing.release()

    def message(self) -> dict[str, Any]:
        """Return the next line that says more than that the far end is alive."""
        while True:
            value = _object(self.line())
            if "alive" not in value:
                return value

    def framed(self) -> tuple[dict[str, Any], bytes]:
        """Return the next message and, of a frame, the bytes that follow it."""
        message = self.message()
        if "item" not in message or "bytes" not in message:
            return message, b""
        size = int(message["bytes"])
        if not 0 <= size <= MOST_BYTES:
            raise RemoteError(f"the cluster's side sent a frame of {size} bytes")
        return message, bytes(self.exactly(size))

    def answer(self, verb: str) -> dict[str, Any]:
        """Return the next message, the answer to `verb`. Raises FarEndError when it is an error."""
        value = self.message()
        error = failure_of(value, verb)
        if error is not None:
            raise error
        return value

    def line(self) -> bytes:
        """Return the next line without its end."""
        searched = 0
        while True:
            end = self._buffer.find(b"\n", searched)
            if end >= 0:
                found = bytes(self._buffer[:end])
                del self._buffer[: end + 1]
                return found
            searched = len(self._buffer)
            if searched > LINE_BYTES:
                raise RemoteError("the cluster's side sent a line without an end")
            self._buffer += self._read()

    def exactly(self, size: int) -> memoryview:
        """Return the next `size` bytes, in a memory that the next call uses again."""
        if len(self._frame) < size:
            self._frame = bytearray(size)
        view = memoryview(self._frame)[:size]
        have = min(size, len(self._buffer))
        view[:have] = memoryview(self._buffer)[:have]
        del self._buffer[:have]
        self._channel.set_timeout(ANSWER_S)
        while have < size:
            count = self._channel.readinto(view[have:])
            if not count:
                raise self._ended()
            have += count
        return view

    def close(self) -> None:
        """Close the channel; the far end sees the end of its input, tidies up and leaves."""
        self._channel.close()

    def _read(self) -> bytes:
        self._channel.set_timeout(ANSWER_S)
        data = self._channel.read(1 << 16)
        if not data:
            raise self._ended()
        return data

    def _ended(self) -> Unreachable:
        text = "the cluster's side ended in the middle of the session"
        return Unreachable(text, _said(self._channel))


def failure_of(answer: Mapping[str, Any], verb: str) -> FarEndError | None:
    """Return the error that an answer to `verb` tells of; None when all went well."""
    if answer.get("ok") is not False:
        return None
    error = answer.get("error") or {}
    kind = str(error.get("kind"))
    return FarEndError(kind, f"{verb}: {error.get('message')}", HINTS.get(kind, ""))


def start(host: Host, line: str, remote: Remote, env: Mapping[str, str]) -> Wire:
    """Open a channel to the command `line` and return it once the far end has reported.

    Raises FarEndError when the cluster's side cannot or will not start, RemoteTimeout when nothing
    comes within [remote] connect_timeout, and what the host raises when it cannot log in.
    """
    channel = host.open(line)
    try:
        ahead = up_to_marker(channel, host.name, remote, env)
        wire = Wire(channel, ahead)
        wire.started = _object(wire.line())
        spoken = wire.started.get("accepts", [])
        if hpc_cluster.PROTOCOL not in spoken:
            raise _other_protocol(host.name, wire.started, env)
        return wire
    except BaseException:
        channel.close()
        raise


def _other_protocol(name: str, started: Mapping[str, Any], env: Mapping[str, str]) -> FarEndError:
    """Return the error for a far end that does not speak this protocol: who must be updated."""
    theirs, ours = started.get("protocol"), hpc_cluster.PROTOCOL
    if isinstance(theirs, int) and theirs > ours:
        hint = "update the service host to the release that the cluster has"
    else:
        hint = f"`hpc-batch deploy` brings this release to {env.get('scripts')}"
    return FarEndError(
        "protocol",
        f"{name} has hpc_batch {started.get('version')} (protocol {theirs}), "
        f"this host {hpc_cluster.VERSION} (protocol {ours}), and the two do not fit",
        hint,
    )


def up_to_marker(channel: Channel, name: str, remote: Remote, env: Mapping[str, str]) -> bytes:
    """Read up to the marker and return what came after it.

    Raises FarEndError when a refusal or the end comes instead, RemoteTimeout when nothing does.
    """
    deadline = time.monotonic() + remote.connect_timeout
    seen = b""
    while True:
        for mark in (REFUSAL, MARKER):
            at = seen.find(mark)
            if at >= 0 and (mark is MARKER or b"\n" in seen[at:]):
                rest = seen[at + len(mark) :]
                if mark is MARKER:
                    return rest
                _refused(rest.split(b"\n", 1)[0], env)
        if len(seen) > BANNER_BYTES:
            raise FarEndError(
                "banner",
                f"{name} printed more than {BANNER_BYTES >> 20} MiB and began no session",
                "see what the account's login shell prints",
            )
        channel.set_timeout(max(0.1, deadline - time.monotonic()))
        try:
            data = channel.read(1 << 16)
        except RemoteTimeout:
            raise RemoteTimeout(
                f"the session on {name} did not start within {remote.connect_timeout} s",
                _said(channel) or "raise [remote] connect_timeout if the cluster is only slow",
            ) from None
        if not data:
            raise _why_not(channel, name, remote, env)
        seen += data


def _refused(line: bytes, env: Mapping[str, str]) -> None:
    """Raise what the far end itself gave as its reason."""
    error = _object(line)
    kind, message = str(error.get("kind")), str(error.get("message"))
    hints = {
        "python": "set [remote] python to a newer one",
        "workspace": f"look at [hpc_env] workspace = {env.get('workspace')}",
        "protocol": f"`hpc-batch deploy` brings this release to {env.get('scripts')}",
    }
    raise FarEndError(kind, message, hints.get(kind, ""))


def _why_not(channel: Channel, name: str, remote: Remote, env: Mapping[str, str]) -> RemoteError:
    """Return the error for a far end that ended before its marker.

    One that was killed, by a signal that a shell tells as a status above 128, says nothing about
    the cluster: the next pass tries again.
    """
    code, said = channel.finish(), _said(channel)
    scripts = env.get("scripts")
    if code == 127:
        message = f"{name} has no {remote.python}"
        hint = "set [remote] python, or load one in [remote] prologue"
        return FarEndError("python", message, hint)
    if code == 126:
        return FarEndError("python", f"{remote.python} on {name} cannot be run", said)
    if "hpc_session" in said and "No such file" in said:
        message = f"{name} has no checkout at {scripts} (no hpc_session there)"
        return FarEndError(
            "checkout", message, "`hpc-batch deploy` brings it there, or set [hpc_env] scripts"
        )
    if "No module named" in said and "hpc_cluster" in said:
        message = f"the checkout at {scripts} on {name} is incomplete: no hpc_cluster beside it"
        return FarEndError("checkout", message, "`hpc-batch deploy` brings the whole there")
    if code is None or code > 128:
        return Unreachable(f"the session on {name} was killed before it began", said)
    message = f"the session on {name} ended before it began (exit status {code})"
    return FarEndError("start", message, said)


def _said(channel: Channel) -> str:
    """Return the end of the far end's stderr as text."""
    return channel.stderr_tail().decode("utf-8", "backslashreplace").strip()[-2000:]


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line.decode("utf-8"))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise RemoteError(f"the cluster's side sent no JSON object: {line[:200]!r}")
    return value
