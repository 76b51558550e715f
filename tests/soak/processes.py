"""The processes of a soak: what each one is, told from its command line.

Everything that belongs to a soak names a folder of its own in its arguments, so nobody else's
process is ever taken for one of ours.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import process_tree

Send = Callable[[int, int], None]
"""Sends a signal to a process by its number; one that is gone is no error."""


@dataclass(frozen=True)
class Process:
    """A process that was seen."""

    pid: int
    what: str
    """submitter, session, runner, guard, job, ssh or login."""
    words: tuple[str, ...]

    @property
    def pilot(self) -> str:
        """P of a runner."""
        return self.words[self.words.index("--pilot") + 1]


@dataclass(frozen=True)
class Processes:
    """The processes of one machine that name one of these folders."""

    proc: Path
    """Its /proc, as this process sees it."""
    folders: tuple[str, ...]
    send: Send
    login: str = ""
    """What matches the command line of an sshd's child, which names no folder."""
    below: int | None = None
    """Such a child counts only below this process."""

    def seen(self) -> Iterator[Process]:
        """Yield those that live."""
        for entry in os.listdir(self.proc):
            if not entry.isdigit():
                continue
            with contextlib.suppress(OSError):
                # RACE: it may end while we look.
                line = (self.proc / entry / "cmdline").read_bytes()
                words = tuple(os.fsdecode(line).rstrip("\0").split("\0"))
                what = self._what(words)
                if what == "login" and self.below is not None:
                    what = what if int(entry) in self.descendants(self.below) else ""
                if what:
                    yield Process(int(entry), what, words)

    def _what(self, words: tuple[str, ...]) -> str:
        line = " ".join(words)
        if self.login and re.match(self.login, line):
            return "login"
        if not any(folder in line for folder in self.folders):
            return ""
        if line.endswith("job.sh") or "/job.sh" in words[-1]:
            return "job"
        if "hpc_cluster.guard" in line:
            return "guard"
        if "--pilot" in words and "python" in os.path.basename(words[0]):
            return "runner"
        if any(word.endswith("hpc_submitter") for word in words):
            return "submitter"
        if "hpc_session" in line and "python" in os.path.basename(words[0]):
            return "session"
        return "ssh" if os.path.basename(words[0]) in ("ssh", "ssh:") else ""

    def parent(self, pid: int) -> int | None:
        """Return the number of a process's parent; None where it has ended."""
        return process_tree.parent(pid, self.proc)

    def descendants(self, pid: int) -> list[int]:
        """Return the numbers of a process's children, and of theirs."""
        return process_tree.descendants(pid, self.proc)

    def job(self, process: Process) -> tuple[str, int, str] | None:
        """Return J, the attempt and P that a job's process belongs to."""
        try:
            lines = (self.proc / str(process.pid) / "environ").read_bytes().split(b"\0")
        except OSError:
            return None  # RACE: it has ended
        known = dict(line.split(b"=", 1) for line in lines if b"=" in line)
        try:
            job, attempt, pilot = (
                known[b"HPC_BATCH_" + name].decode() for name in (b"JOB_ID", b"ATTEMPT", b"PILOT")
            )
            return job, int(attempt), pilot
        except KeyError:
            return None


def send_here(pid: int, number: int) -> None:
    """Send a signal to a process of this machine."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
