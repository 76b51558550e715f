"""The batch system as text and data.

A dialect says which command to run (argument vector and standard input) and what captured output
means; nothing in a dialect runs anything. `run` is the one place that does. So adding a batch
system is one small module and its captured outputs (docs/how-to/add-a-dialect.md).

Answers are three-valued. A submission is submitted, refused, or unclear: then it is looked for by
its nonce and never sent again at once. A listing is a table of states or None: silence, an error, a
cut line are not an empty list. A state that is not known is unknown, never ended.
"""

import abc
import importlib
import os
import pwd
import re
import shlex
import signal
import subprocess
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from hpc_cluster import effects, files
from hpc_cluster.errors import BatchError

DIALECTS = ("flux", "local", "lsf", "pbs", "sge", "slurm", "torque")
"""Each is a module here with a class of that name."""

QUEUED, RUNNING, ENDED, UNKNOWN = "queued", "running", "ended", "unknown"
"""The states of a pilot in the batch system; completing counts as running."""

TIMEOUT_S = 60.0
"""How long a command may take. Above the 20 s that Slurm's own clients wait for a dead
controller."""

KILLED_S = 5.0
"""How long one that was killed may take to end. It may hang in the kernel, for a file server; or it
has left somebody with its pipes."""

TERM_S = 20.0
"""A pilot's jobs are over so long after its batch system asked it to end; Slurm waits 30 s by
default (KillWait)."""

SHORT_TERM_S = 7.0
"""The same elsewhere: PBS waits 10 s by default (kill_delay), LSF 10 s between its signals."""

NOT_FOUND = 127
"""The shell's code for a program that cannot be started."""

INHERITED = re.compile(
    r"SLURM_(?!CONF$)|PBS_(?!DEFAULT$|SERVER$|CONF_FILE$|EXEC$|HOME$)|LSB_JOB|FLUX_JOB_|FLUX_TASK_"
    r"|SGE_(TASK_|STD|O_|JOB_|BINDING)|(JOB_ID|JOB_NAME|LS_JOBPID|HPC_BATCH_END_TIME)$"
)
"""Variables of an allocation that this process may itself run in, by how they begin."""


class Command(NamedTuple):
    """A program to run."""

    argv: Tuple[str, ...]
    stdin: bytes = b""
    script_file: Optional[str] = None
    """Where the standard input is written to first, for programs that want a file instead."""


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
    passing: bool = False
    """It could not even be reached: that says nothing about the request."""


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


class Dialect(abc.ABC):
    """One batch system. Pure: text out, text in."""

    absent_s = 600.0
    """After an unclear answer: a pilot that complete lists lack for so long was never submitted."""

    @abc.abstractmethod
    def submit(self, request: Request) -> Command:
        """Return the command that submits a pilot."""

    @abc.abstractmethod
    def submitted(self, captured: Captured) -> Answer:
        """Return what its output means."""

    @abc.abstractmethod
    def query(self, wanted: Sequence[Wanted]) -> Command:
        """Return the one command that lists these pilots."""

    @abc.abstractmethod
    def listed(self, captured: Captured) -> Optional[Dict[str, PilotState]]:
        """Return the states by P; None when the output says nothing, or not all."""

    @abc.abstractmethod
    def cancel(self, native_id: str) -> Command:
        """Return the command that ends a pilot."""


class Signs(NamedTuple):
    """How the words of a submit command are understood."""

    native_id: str
    """Regular expression: a line of its output, with the id as its group."""
    refused: str
    """Regular expression: a line of its complaint that says that it was not taken."""
    lost: Tuple[str, ...]
    """Texts of a complaint after which it may have been taken all the same."""
    certain: Tuple[str, ...] = ()
    """Texts of a complaint after which it surely was not, whatever else it says."""


def acknowledgement(program: str, captured: Captured, signs: Signs) -> Answer:
    """Return what a submit command's output means; unclear is all that is not understood."""
    said = last_lines(captured.stderr) or last_lines(captured.stdout)
    if captured.timed_out:
        return Unclear(f"{program} did not answer in time: {said}")
    if captured.rc == 0:
        # Sites print banners around it; the id comes last.
        ids: List[str] = re.findall("(?m)" + signs.native_id, captured.stdout)
        return Submitted(ids[-1]) if ids else Unclear(f"{program} gave no id: {said}")
    if captured.rc == NOT_FOUND:
        return Refused(f"{program} cannot be started: {said}")
    if any(text in captured.stderr for text in signs.certain):
        return Refused(said, passing=True)
    if any(text in captured.stderr for text in signs.lost):
        return Unclear(said)
    if re.search("(?m)" + signs.refused, captured.stderr):
        return Refused(said)
    return Unclear(f"{program} ended with {captured.rc}: {said}")


def dialect(name: str) -> Dialect:
    """Return the dialect of this name. Raises BatchError."""
    if name not in DIALECTS:
        raise BatchError(
            f"the batch system {name!r} is not in this version; it has {', '.join(DIALECTS)}"
        )
    found: Dialect = getattr(importlib.import_module(f"{__name__}.{name}"), name.capitalize())()
    return found


def own_id(environment: Mapping[str, str]) -> Optional[str]:
    """Return the native id of the batch job that has this environment; None outside of one."""
    from hpc_cluster.batch.flux import decimal

    for name in ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID"):
        if environment.get(name):
            return environment[name]
    # JOB_ID alone is a name that anybody may use; Gridengine always sets the other one too.
    if environment.get("JOB_ID") and environment.get("SGE_TASK_ID"):
        return environment["JOB_ID"]
    return decimal(environment.get("FLUX_JOB_ID", ""))


def term_s(environment: Mapping[str, str]) -> float:
    """Return how long after the signal of its batch system all jobs of a pilot are over."""
    elsewhere = own_id(environment) and not environment.get("SLURM_JOB_ID")
    return SHORT_TERM_S if elsewhere else TERM_S


def account() -> str:
    """Return the name of this account, as queries by user want it; cron sets no variables."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def run(command: Command, timeout_s: Optional[float] = None) -> Captured:
    """Run a command and capture what it says; one that takes too long is killed.

    It returns after `timeout_s` (TIMEOUT_S) and KILLED_S at the latest, whatever the command does.
    Variables of an allocation that this process may itself run in are not passed on, or the pilot
    would inherit them.
    """
    if command.script_file is not None:
        files.write_new(files.to_bytes(command.script_file), command.stdin, 0o700)
    environment = {n: value for n, value in os.environ.items() if not INHERITED.match(n)}
    environment.update(LC_ALL="C", SLURM_TIME_FORMAT="standard")
    try:
        process = effects.start(
            [files.to_bytes(word) for word in command.argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        return Captured(NOT_FOUND, "", f"{command.argv[0]}: {error.strerror}")
    limit_s = TIMEOUT_S if timeout_s is None else timeout_s
    try:
        out, err = process.communicate(command.stdin, timeout=limit_s)
    except subprocess.TimeoutExpired:
        out, err = _killed(process)
        rc = process.returncode
        return Captured(-signal.SIGKILL if rc is None else rc, _text(out), _text(err), True)
    return Captured(process.returncode, _text(out), _text(err))


def _killed(process: "subprocess.Popen[bytes]") -> Tuple[bytes, bytes]:
    """Kill a program that takes too long; return what it said, nothing where it does not end."""
    try:
        effects.kill_group(process.pid, signal.SIGKILL)
    except OSError:
        pass  # RACE: it ended just now; or it has become another user
    try:
        return process.communicate(timeout=KILLED_S)
    except subprocess.TimeoutExpired:
        for stream in (process.stdin, process.stdout, process.stderr):
            try:
                if stream is not None:
                    stream.close()
            except OSError:
                pass  # what it was still to be told
        process.poll()
        return b"", b""


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def script(request: Request, *first: str) -> bytes:
    """Return the batch script: lines to begin with, the operator's prologue, then the runner in
    the script's place, so that signals to the script reach it."""
    lines = ["#!/bin/bash", *first, request.prologue.strip("\n")]
    lines.append("exec " + " ".join(shlex.quote(word) for word in request.argv))
    return files.to_bytes("\n".join(line for line in lines if line) + "\n")


def unaided(request: Request) -> Tuple[str, ...]:
    """Return the first lines of a script for batch systems that give little help: it appends to its
    log, which is then never spooled or replaced, begins in the workspace, and knows its end."""
    return (
        f"exec >>{shlex.quote(request.log)} 2>&1",
        f"cd {shlex.quote(request.workspace)} || exit",
        knows_its_end(request),
    )


def knows_its_end(request: Request) -> str:
    """Return the line of a script that says when it will end; it comes before the prologue, which
    may take its time."""
    return f"export HPC_BATCH_END_TIME=$(($(date +%s) + {request.walltime_s}))"


def hours(seconds: int) -> str:
    """Return a time as H:MM:SS."""
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def gpus(gres: str) -> Optional[str]:
    """Return N of gpu:N; None for anything else, which is in the batch system's own words."""
    match = re.match("gpu(?::([0-9]+))?$", gres)
    return None if match is None else match.group(1) or "1"


def no_answer(command: Command, captured: Captured) -> str:
    """Return in words what came in place of an answer."""
    program, said = command.argv[0], last_lines(captured.stderr) or last_lines(captured.stdout)
    if captured.timed_out:
        return f"{program} did not answer in time" + (f": {said}" if said else "")
    return f"{program}: {said}" if said else f"{program} did not answer"


def whole_lines(captured: Captured) -> Optional[List[str]]:
    """Return the lines of a list; None when it is an error, late or cut."""
    text = captured.stdout
    if captured.timed_out or captured.rc != 0 or (text and not text.endswith("\n")):
        return None
    return text.splitlines()


def last_lines(text: str, count: int = 3) -> str:
    """Return the last lines of what a program said, as one line for people."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " / ".join(lines[-count:])[:500]
