"""A channel made of a local process and three pipes: /bin/sh here, or a client of ssh's master.

Our ends of the pipes do not block. Whoever has to wait polls its pipe together with a pipe of our
own, `_wake`, whose other end `close` drops: so no thread sleeps past the end of its channel. The
process has a session of its own, so that a Ctrl-C in a terminal reaches only us and we end things
in order.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Callable, Optional

from hpc_batch.errors import RemoteError, RemoteTimeout
from hpc_batch.hosts.tail import Tail

TIMEOUT_S = 60.0
PIPE_BYTES = 1 << 20
"""Asked of the kernel for each pipe; the default of 64 KiB costs a third of the throughput."""
F_SETPIPE_SZ = 1031
"""fcntl(2); the fcntl module has the name since Python 3.10."""
END_S = 2.0
"""How long a process may take to end whose output or input has ended, or that got a signal."""
SLICE_S = 0.02
"""How often `finish` looks whether the process has ended while its output is still open."""

Verdict = Callable[[Optional[int], bytes], Optional[RemoteError]]
"""Judge an ended process by its exit status and the end of its stderr: was the connection lost?"""


def own_fault(status: int | None, stderr: bytes) -> RemoteError | None:
    """Judge that a command's end is always its own: there is no connection to lose."""
    return None


class PipeChannel:
    """A process that runs `argv`; hosts.Channel tells what the methods promise."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        inherit: Sequence[int] = (),
        grace_s: float = 0.0,
        verdict: Verdict = own_fault,
    ) -> None:
        """Start the process.

        `grace_s` is how long `close` waits for it to end by itself once its pipes are closed.
        """
        self._grace_s = grace_s
        self._verdict = verdict
        self._timeout_s = TIMEOUT_S
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        self._wake, self._wake_end = os.pipe()
        self.closed = False
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd=_home(),
                start_new_session=True,
                pass_fds=inherit,
            )
        except OSError as error:
            os.close(self._wake)
            os.close(self._wake_end)
            raise RemoteError(f"cannot start {argv[0]}: {error.strerror}") from error
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._input = self._process.stdin
        self._output = self._process.stdout
        self._stderr = self._process.stderr
        for pipe in (self._input, self._output, self._stderr):
            os.set_blocking(pipe.fileno(), False)
            try:
                fcntl.fcntl(pipe.fileno(), F_SETPIPE_SZ, PIPE_BYTES)
            except OSError:
                # RACE: none; the user's pipes may have used up their pages (pipe(7)).
                pass
        try:
            self._tail = Tail(self._read_stderr)
        except RemoteError:
            self._process.kill()
            self._process.wait()
            for pipe in (self._input, self._output, self._stderr):
                pipe.close()
            os.close(self._wake)
            os.close(self._wake_end)
            raise

    def set_timeout(self, seconds: float) -> None:
        self._timeout_s = seconds

    def write(self, data: bytes | memoryview) -> None:
        with self._writing:
            rest = memoryview(data)
            while rest:
                if self._input.closed:
                    raise RemoteError("the channel is closed")
                try:
                    sent = os.write(self._input.fileno(), rest)
                except BlockingIOError:
                    if not self._ready(self._input.fileno(), select.POLLOUT, self._timeout_s):
                        raise RemoteTimeout(
                            f"nothing could be sent for {self._timeout_s:g} s"
                        ) from None
                except BrokenPipeError:
                    raise self._ended() from None
                else:
                    rest = rest[sent:]

    def read(self, n: int) -> bytes:
        with self._reading:
            data = self._read_output(n, self._timeout_s)
            if data is None:
                raise RemoteTimeout(f"nothing came for {self._timeout_s:g} s")
            if not data:
                self._judge_end()
            return data

    def readinto(self, view: memoryview) -> int:
        with self._reading:
            while not self._output.closed:
                try:
                    count = os.readv(self._output.fileno(), [view])
                except BlockingIOError:
                    if not self._ready(self._output.fileno(), select.POLLIN, self._timeout_s):
                        raise RemoteTimeout(f"nothing came for {self._timeout_s:g} s") from None
                else:
                    if not count:
                        self._judge_end()
                    return count
            raise RemoteError("the channel is closed")

    def _judge_end(self) -> None:
        """Raise RemoteError where the output ended because the connection was lost."""
        if self._verdict is not own_fault:
            error = self._verdict(self._status(END_S), self._tail.settled())
            if error:
                raise error

    def finish(self) -> int | None:
        self._close_input()
        deadline = time.monotonic() + self._timeout_s
        while self._process.poll() is None:
            if time.monotonic() > deadline:
                raise RemoteTimeout(f"the command did not end within {self._timeout_s:g} s")
            with self._reading:
                data = self._read_output(PIPE_BYTES, SLICE_S)
            if data:
                deadline = time.monotonic() + self._timeout_s
            elif data == b"":
                self._status(SLICE_S)
        error = self._verdict(self._process.returncode, self._tail.settled())
        self.close()
        if error:
            raise error
        return self._process.returncode if self._process.returncode >= 0 else None

    def stderr_tail(self) -> bytes:
        return self._tail.so_far() if self._process.poll() is None else self._tail.settled()

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        os.close(self._wake_end)
        self._tail.join()
        with self._writing, self._reading:
            for pipe in (self._input, self._output, self._stderr):
                pipe.close()
        if self._status(self._grace_s) is None:
            self._signal(signal.SIGTERM)
            if self._status(END_S) is None:
                self._signal(signal.SIGKILL)
        self._process.wait()
        os.close(self._wake)

    def _ready(self, descriptor: int, event: int, timeout_s: float) -> bool:
        """Wait until a pipe can be used; raise RemoteError when the channel is closed."""
        if not self.closed:
            poll = select.poll()
            poll.register(descriptor, event)
            poll.register(self._wake, 0)
            ready = dict(poll.poll(timeout_s * 1000))
            if self._wake not in ready:
                return bool(ready)
        raise RemoteError("the channel is closed")

    def _read_output(self, n: int, timeout_s: float) -> bytes | None:
        """Return some output, b"" at its end, None when nothing came in time."""
        while not self._output.closed:
            try:
                return os.read(self._output.fileno(), n)
            except BlockingIOError:
                if not self._ready(self._output.fileno(), select.POLLIN, timeout_s):
                    return None
        raise RemoteError("the channel is closed")

    def _read_stderr(self, n: int) -> bytes:
        while True:
            try:
                return os.read(self._stderr.fileno(), n)
            except BlockingIOError:
                try:
                    self._ready(self._stderr.fileno(), select.POLLIN, TIMEOUT_S)
                except RemoteError:
                    return b""

    def _status(self, timeout_s: float) -> int | None:
        """Return the exit status of the process, None while it runs."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            # RACE: the process ended meanwhile.
            pass

    def _close_input(self) -> None:
        with self._writing:
            self._input.close()

    def _ended(self) -> RemoteError:
        """Return the error of a write to a process that reads no more."""
        status, stderr = self._status(END_S), self._tail.so_far()
        error = self._verdict(status, stderr)
        if error:
            return error
        how = "reads no more" if status is None else f"has ended with status {status}"
        return RemoteError(f"the command {how}", last_line(stderr))


def last_line(stderr: bytes) -> str:
    """Return the last line with something on it, for messages."""
    lines = stderr.decode("utf-8", "replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _home() -> str:
    """Return the folder where commands start, as a login would choose it."""
    home = str(Path.home())
    return home if os.path.isdir(home) else "/"
