"""The processes of a round: found by what they run, stopped, and let go on."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

from preload.library import Role
from preload.rounds import PASS_S, TOOLS, Round

WORDS = {
    "hpc_submitter": Role.SUBMITTER,
    "hpc_cluster.session": Role.SESSION,
    "hpc_session": Role.SESSION,
    "hpc_runner": Role.RUNNER,
    "hpc_cluster.guard": Role.GUARD,
    "hpc_cluster.batch.local": Role.LOCAL,
}


def command_lines() -> list[tuple[int, str]]:
    """Return the command line of every process."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            line = Path("/proc", name, "cmdline").read_bytes().replace(b"\0", b" ")
            found.append((int(name), line.decode("utf-8", "replace")))
    return found


def programs(here: Round, roles: Role) -> dict[int, Role]:
    """Return the programs of a world: pid and role."""
    found = {}
    for pid, line in command_lines():
        role = next((role for word, role in WORDS.items() if word in line), Role.OTHER)
        if str(here.root.parent) in line and "python" in line and role & roles & ~Role.OTHER:
            found[pid] = role
    return found


def begin_pass(here: Round) -> subprocess.Popen[bytes]:
    """Begin a pass; nobody reads what it says."""
    return subprocess.Popen(
        [sys.executable, str(TOOLS / "hpc_submitter"), str(here.ini)],
        env={**here.judge.environment(), **here.more},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def end_pass(here: Round, process: subprocess.Popen[bytes]) -> None:
    """Wait for the end of a pass."""
    try:
        process.wait(PASS_S)
    except subprocess.TimeoutExpired:
        here.problems.append("a pass hangs")
        process.kill()
        process.wait()


def go_on(pid: int) -> None:
    """Let a process go on that was stopped."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def lift_limits(pid: int) -> None:
    """Take the limits of a process away."""
    with contextlib.suppress(ProcessLookupError):
        for what in (resource.RLIMIT_FSIZE, resource.RLIMIT_AS, resource.RLIMIT_NOFILE):
            _, most = resource.prlimit(pid, what)
            resource.prlimit(pid, what, (most, most))


def wait_for_pilots(here: Round, seconds: float) -> None:
    """Wait while pilots live, but not longer than so."""
    deadline = time.monotonic() + seconds
    while here.pilots() and time.monotonic() < deadline:
        time.sleep(0.02)


def name_of(pid: int) -> str:
    """Return what a process runs; "" when it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().rstrip()
    return ""
