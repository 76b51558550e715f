"""The batch system as text and data.

A dialect says which command to run (argument vector and standard input) and what captured output
means; nothing in a dialect runs anything. `run` is the one place that does. So adding a batch
system is one small module and its captured outputs.

Answers are three-valued. A submission is submitted, refused, or unclear: then it is looked for by
its nonce and never sent again at once. A listing is a table of states or None: silence, an error, a
cut line are not an empty list. A state that is not known is unknown, never ended.
"""

import os
import shlex
import signal
import subprocess
from typing import Dict, NamedTuple, Optional, Sequence, Tuple, Union

from hpc_cluster import files
from hpc_cluster.errors import BatchError

QUEUED, RUNNING, ENDED, UNKNOWN = "queued", "running", "ended", "unknown"
"""The states of a pilot in the batch system; completing counts as running."""

TIMEOUT_S = 60.0
"""How long a command may take. Above the 20 s that Slurm's own clients wait for a dead
controller."""

NOT_FOUND = 127
"""The shell's code for a program that cannot be started."""


class Command(NamedTuple):
    """A program to run."""

    argv: Tuple[str, ...]
    stdin: bytes = b""


class Captured(NamedTuple):
    """What a program answered."""

    rc: int
    """Return code; negative: the signal that ended it."""
    stdout: str
    stderr: str
    timed_out: bool = False


class Submitted(NamedTuple):
    """The batch system took the pilot."""

    native_id: str


class Refused(NamedTuple):
    """The batch system certainly did not take it."""

    message: str
    """Its own words."""


class Unclear(NamedTuple):
    """It may or may not have been taken: look for the nonce."""

    message: str


Answer = Union[Submitted, Refused, Unclear]


class PilotState(NamedTuple):
    """What the batch system says of one pilot."""

    state: str
    """One of QUEUED, RUNNING, ENDED, UNKNOWN."""
    native_id: str
    reason: Optional[str] = None
    """Its own word: why it waits, or how it ended."""
    node: Optional[str] = None


class Request(NamedTuple):
    """A pilot to submit."""

    pilot: str
    """P: the nonce by which it is found again."""
    name: str
    """The name in the batch system: the same for all pilots of one slot of one workspace."""
    workspace: str
    log: str
    """Path of the file for its output."""
    prologue: str
    """Lines of shell before the runner."""
    argv: Tuple[str, ...]
    """The runner."""
    walltime_s: int
    warning_s: int
    """The warning signal is sent at least so long before the end."""
    options: Tuple[Tuple[str, str], ...]
    """What the operator asks for, by name: account, partition, …; empty ones are left out."""
    extra: Tuple[str, ...]
    """Further arguments of the submit command, as the operator wrote them."""


class Wanted(NamedTuple):
    """A pilot to ask for."""

    pilot: str
    name: str
    """The name it was submitted with."""
    native_id: Optional[str]
    """None: its submission was not acknowledged."""


class Dialect:
    """One batch system. Pure: text out, text in."""

    absent_s = 600.0
    """After an unclear answer: a pilot that complete lists lack for so long was never submitted."""

    def submit(self, request: Request) -> Command:
        """Return the command that submits a pilot."""
        raise NotImplementedError

    def submitted(self, captured: Captured) -> Answer:
        """Return what its output means."""
        raise NotImplementedError

    def query(self, wanted: Sequence[Wanted]) -> Command:
        """Return the one command that lists these pilots."""
        raise NotImplementedError

    def listed(self, captured: Captured) -> Optional[Dict[str, PilotState]]:
        """Return the states by P; None when the output says nothing, or not all."""
        raise NotImplementedError

    def cancel(self, native_id: str) -> Command:
        """Return the command that ends a pilot."""
        raise NotImplementedError


def dialect(name: str) -> Dialect:
    """Return the dialect of this name. Raises BatchError."""
    from hpc_cluster.batch.local import Local
    from hpc_cluster.batch.slurm import Slurm

    known = {"local": Local, "slurm": Slurm}
    if name not in known:
        raise BatchError(
            f"the batch system {name!r} is not in this version; it has {', '.join(sorted(known))}"
        )
    return known[name]()


def run(command: Command, timeout_s: float = TIMEOUT_S) -> Captured:
    """Run a command and capture what it says; one that takes too long is killed.

    Variables of an allocation that this process may itself run in are not passed on, or the pilot
    would inherit them.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SLURM_") or name == "SLURM_CONF"
    }
    environment.update(LC_ALL="C", SLURM_TIME_FORMAT="standard")
    try:
        process = subprocess.Popen(
            list(command.argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        return Captured(NOT_FOUND, "", f"{command.argv[0]}: {error.strerror}")
    with process:
        timed_out = False
        try:
            out, err = process.communicate(command.stdin, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            timed_out = True
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
    return Captured(process.returncode, _text(out), _text(err), timed_out)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def script(request: Request) -> bytes:
    """Return the batch script: the operator's prologue, then the runner in the script's place."""
    lines = ["#!/bin/bash", request.prologue.strip("\n")]
    lines.append("exec " + " ".join(shlex.quote(word) for word in request.argv))
    return files.to_bytes("\n".join(line for line in lines if line) + "\n")


def last_lines(text: str, count: int = 3) -> str:
    """Return the last lines of what a program said, as one line for people."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " / ".join(lines[-count:])[:500]
