"""The process of a job: its script, running in a process group of its own.

What the script leaves in its group is killed when it ends. The guard knows the group for as long as
it may have members, and kills it when the runner dies.
"""

import os
import signal
import subprocess
import time
from typing import Any, Dict, Mapping, Optional, Sequence

from hpc_cluster import clock, effects, files
from hpc_cluster.guard import Guard, kill

SH = "/bin/sh"
"""What runs a script that does not say."""

PAUSES_S = (0.02, 0.1)
"""A program that cannot be executed is tried again after these. It may be that another thread is
starting another job just now, and holds this script open for writing until it has (ETXTBSY)."""

FIRST_BYTES = 200
"""No more of a script's first line is told."""


def surroundings(environment: Mapping[bytes, bytes], **more: str) -> Dict[bytes, bytes]:
    """Return an environment with some variables more; all are bytes."""
    named = {files.to_bytes(name): files.to_bytes(value) for name, value in more.items()}
    return {**environment, **named}


def interpreter(script: bytes) -> str:
    """Return what is to run a script: its first line, where that names a program."""
    if not script.startswith(b"#!"):
        return SH
    return files.from_bytes(script[:FIRST_BYTES].split(b"\n")[0])


class Process:
    """One running script."""

    def __init__(
        self, folder: bytes, script: bytes, environment: Mapping[bytes, bytes], guard: Guard
    ) -> None:
        """Start it in its attempt's folder, where job.sh holds the script. Raises OSError."""
        self._guard = guard
        self.rc: Optional[int] = None
        """The return code, or a signal's number below 0; None while it runs."""
        self._ended: Optional[float] = None
        streams = []
        try:
            for name in ("stdout", "stderr"):
                path = files.join(folder, name)
                streams.append(files.twice(files.open_append, path))
            self.began = clock.monotonic()
            """The moment of its start (monotonic)."""
            path = files.join(folder, "job.sh")
            argv = [path] if script.startswith(b"#!") else [files.to_bytes(SH), path]
            more = {"cwd": files.join(folder, "work"), "env": environment}
            self._process = _start(argv, stdout=streams[0], stderr=streams[1], **more)
        finally:
            for stream in streams:
                _let_go(stream)
        self.group = self._process.pid
        """The number of its process group, which is its own."""
        guard.tell(f"+{self.group}")

    @property
    def ended(self) -> float:
        """The moment of its end (monotonic); now, while it runs."""
        return clock.monotonic() if self._ended is None else self._ended

    def send(self, number: int) -> None:
        """Send a signal to the whole group, while the script runs."""
        if self.rc is None:
            kill(self.group, number)

    def reap(self) -> bool:
        """Note the script's end, if it came; what it left in its group is killed first.

        The leader is reaped last, so that the group's number cannot belong to anybody else.
        """
        if self.rc is None:
            flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
            if os.waitid(os.P_PID, self.group, flags) is None:
                return False
            kill(self.group, signal.SIGKILL)
            self._over(self._process.wait())
        return True

    def end(self, seconds: float) -> None:
        """Kill the group, and wait for the script's end for so long."""
        if self.rc is None:
            kill(self.group, signal.SIGKILL)
            try:
                self._over(self._process.wait(seconds))
            except subprocess.TimeoutExpired:
                return  # it hangs in the kernel; the guard keeps its number

    def remains(self) -> bool:
        """Tell whether a member of the group is left."""
        return kill(self.group, 0)

    def _over(self, rc: int) -> None:
        self._guard.tell(f"-{self.group}")
        self.rc, self._ended = rc, clock.monotonic()


def _start(argv: Sequence[bytes], **options: Any) -> "subprocess.Popen[bytes]":
    """Start a program in a session of its own. Raises OSError.

    One that is refused is tried again: an error that names a path says that nothing was begun.
    """
    for pause_s in PAUSES_S:
        try:
            return effects.start(argv, stdin=subprocess.DEVNULL, start_new_session=True, **options)
        except OSError as error:
            if error.filename is None:
                raise
            time.sleep(pause_s)
    return effects.start(argv, stdin=subprocess.DEVNULL, start_new_session=True, **options)


def _let_go(stream: int) -> None:
    """Close our own descriptor of a stream, into which the job alone writes."""
    try:
        files.close(stream)
    except OSError:
        return  # it is closed; what the disk has to say is said of the job's results
