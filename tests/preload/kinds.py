"""The kinds of rounds that `sweep.py` makes: the world of each, and what is disturbed in it."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from integration import sshd
from preload.library import EVERY_CALL, EVERY_ROLE, Act, Call, Judge, Role
from preload.lying import Lying
from preload.processes import (
    begin_pass,
    command_lines,
    end_pass,
    go_on,
    lift_limits,
    name_of,
    programs,
    wait_for_pilots,
)
from preload.rounds import (
    AT_WORK,
    LEAPS_S,
    PASS_S,
    PATIENT,
    TOOLS,
    Fault,
    Round,
    calls,
    choose,
    choose_storm,
    choose_strange,
    compared,
    disturbed,
    hastened,
    stormy,
)
from soak.clocks import hasten


class Made(NamedTuple):
    """What came of a round."""

    told: str
    """How it was disturbed."""
    problems: list[str]
    """What was wrong in the end."""


class Kind:
    """One call that goes wrong."""

    which = EVERY_CALL

    def __init__(self, roles: Role = EVERY_ROLE) -> None:
        self.roles = roles
        self._seen: dict[tuple[Role, Call], int] = {}

    def world(self, root: Path, judge: Judge) -> Round:
        """Return the world, in a folder."""
        return Round(root / "w", judge)

    def learn(self, here: Round) -> None:
        """Look at an undisturbed round."""
        seen = calls(here, self.which)
        self._seen = {key: n for key, n in seen.items() if key[0] & self.roles}

    def choose(self, chance: random.Random) -> Fault:
        """Choose the fault of a round."""
        return choose(chance, self._seen)

    def make(self, here: Round, chance: random.Random, expected: Mapping[str, Any]) -> Made:
        """Make a round."""
        fault = self.choose(chance)
        return Made(str(fault), disturbed(here, fault, expected))


class Strange(Kind):
    """One call that says what is not true, and what somebody could have caused."""

    def choose(self, chance: random.Random) -> Fault:
        return choose_strange(chance, self._seen)


class Memory(Kind):
    """One malloc, or a few in a row, that return nothing."""

    which = Call.MEMORY

    def choose(self, chance: random.Random) -> Fault:
        (role, call), number = chance.choice(sorted(self._seen.items()))
        at, times = chance.randint(1, number), chance.choice([1, 1, 1, 3, 20])
        return Fault(role, call, Act.FAIL, at, errno.ENOMEM, times)

    def make(self, here: Round, chance: random.Random, expected: Mapping[str, Any]) -> Made:
        made = super().make(here, chance, expected)
        return Made(made.told, without_tracebacks(made.problems))


class Storms(Kind):
    """Many calls that go wrong."""

    def world(self, root: Path, judge: Judge) -> Round:
        return hastened(root, judge)

    def learn(self, here: Round) -> None:
        """Nothing is to be known."""

    def make(self, here: Round, chance: random.Random, expected: Mapping[str, Any]) -> Made:
        storm = choose_storm(chance, None if self.roles == EVERY_ROLE else self.roles)
        return Made(str(storm), stormy(here, storm, expected))


class Mixed(Storms):
    """Storms, clocks that leap, and a batch system that lies, all at once."""

    def world(self, root: Path, judge: Judge) -> Round:
        return Lying(root / "w", judge, **two_slots(root, lease_s=60.0))

    def make(self, here: Round, chance: random.Random, expected: Mapping[str, Any]) -> Made:
        assert isinstance(here, Lying)
        roles = (Role.RUNNER, Role.RUNNER | Role.GUARD, Role.SESSION, sum(AT_WORK, Role(0)))
        storm = choose_storm(chance, chance.choice([*roles, roles[-1]]))
        told: list[object] = [storm]
        if chance.random() < 0.4:
            leap_s = chance.choice(LEAPS_S)
            told.append(f"the file server's clock leaps by {leap_s} s")
            here.judge.server(leap_s, int(time.time()) - 6000)
        here.begin()
        here.judge.storm(storm.roles, storm.calls, max(storm.one_in, 50), storm.seed)
        for _ in range(chance.choice([2, 4, 6])):
            told.append(here.lie(chance))
            if chance.random() < 0.6:
                whose = chance.choice([HOST, EVERY_ROLE & ~HOST, EVERY_ROLE, *roles[:3]])
                here.judge.clock(whose, chance.choice(LEAPS_S))
            here.one_pass()
            time.sleep(chance.random() * 0.5)
        here.judge.disarm()
        here.be_honest()
        if chance.random() < 0.5:
            here.judge.clock(Role(0), 0)
        here.settle()
        here.judge.clock(Role(0), 0)
        here.judge.server(0, 0)
        but_slots = {key: value for key, value in expected.items() if key != "slots"}
        return Made(" ".join(map(str, told)), compared(here, but_slots))


HOST = Role.SUBMITTER | Role.CLIENT


class Limits(Storms):
    """Passes, and the pilots that they start, with few descriptors, little memory, small files."""

    LIMITS: tuple[Callable[[random.Random], str], ...] = (
        lambda chance: f"--nofile={chance.randint(4, 40)}:",
        lambda chance: f"--as={chance.randint(30, 260)}000000:",
        lambda chance: f"--fsize={chance.choice([0, 100, 1000, 5000, 17000, 100000])}:",
    )

    def make(self, here: Round, chance: random.Random, expected: Mapping[str, Any]) -> Made:
        limit, passes = chance.choice(self.LIMITS)(chance), chance.choice([1, 2, 4])
        here.begin()
        here.before = ["prlimit", limit]
        for _ in range(passes):
            here.one_pass()
            wait_for_pilots(here, 3.0)
        here.before = []
        for pid in programs(here, EVERY_ROLE):
            lift_limits(pid)  # else a job would inherit them, and rightly fail
        here.problems = without_tracebacks(here.problems)
        return Made(f"{limit}, {passes} passes", compared(here, expected))


class Stops(Storms):
    """Any process stopped for a while, or killed, at random moments; each round is another."""

    def world(self, root: Path, judge: Judge) -> Round:
        return Round(root / "w", judge, **two_slots(root, lease_s=15.0))

    def make(self, here: Round, chance: random.Random, expected: Mapping[str, Any]) -> Made:
        here.begin()
        passes: list[subprocess.Popen[bytes]] = []
        stopped: dict[int, float] = {}
        kills, stops, end = 0, 0, time.monotonic() + chance.choice([5, 15, 25])
        while time.monotonic() < end:
            passes = [process for process in passes if process.poll() is None]
            if len(passes) < 3 and chance.random() < 0.4:
                passes.append(begin_pass(here))
            for pid in [pid for pid, until in stopped.items() if time.monotonic() > until]:
                go_on(pid)
                del stopped[pid]
            there = sorted(self._victims(here) - stopped.keys())
            if there and chance.random() < 0.5:
                pid, kill = chance.choice(there), chance.random() < 0.4
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL if kill else signal.SIGSTOP)
                    kills, stops = kills + kill, stops + (not kill)
                if not kill:
                    stopped[pid] = time.monotonic() + chance.choice([0.3, 1, 3, 8, 20])
            time.sleep(chance.choice([0.02, 0.1, 0.2]))
        if chance.random() < 0.5:  # those that stand still come back when all has gone on
            for process in passes:
                go_on(process.pid)
            for _ in range(5):
                here.one_pass()
                time.sleep(0.3)
        for pid in stopped:
            go_on(pid)
        for process in passes:
            end_pass(here, process)
        here.consume()
        return Made(f"{stops} stops, {kills} kills", compared(here, expected))

    def _victims(self, here: Round) -> set[int]:
        return set(programs(here, self.roles))


class Pauses(Stops):
    """One process that stands still for one to three minutes while passes go on."""

    def make(self, here: Round, chance: random.Random, expected: Mapping[str, Any]) -> Made:
        roles = [role for role in (*AT_WORK, Role.RUNNER, Role.SESSION) if role & self.roles]
        role, pause_s = chance.choice(roles), chance.choice([65, 100, 150])
        here.begin()
        end, victims = time.monotonic() + 20.0, []
        passes: list[subprocess.Popen[bytes]] = []
        while not victims and time.monotonic() < end and not here.is_quiet():
            if not passes or passes[-1].poll() is not None:
                passes.append(begin_pass(here))
                time.sleep(chance.random() * 0.7)
            here.consume()
            victims = list(programs(here, role))
        told = f"{role!r} for {pause_s} s, {len(victims)} there"
        if victims:
            pid, end = chance.choice(victims), time.monotonic() + pause_s
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
            while time.monotonic() < end:
                here.one_pass()
                time.sleep(2.0)
            go_on(pid)
        for process in passes:
            end_pass(here, process)
        here.consume()
        return Made(told, compared(here, expected))


class Connections(Stops):
    """ssh, sshd's children and far ends killed at random moments, over a real sshd."""

    def world(self, root: Path, judge: Judge) -> Round:
        return Distant(root, judge)

    def _victims(self, here: Round) -> set[int]:
        assert isinstance(here, Distant)
        return here.connections() | set(programs(here, Role.SESSION))

    def make(self, here: Round, chance: random.Random, expected: Mapping[str, Any]) -> Made:
        here.begin()
        kills = 0
        for _ in range(chance.choice([2, 4, 8])):
            process = begin_pass(here)
            period_s = chance.choice([0.05, 0.3, 1.0])
            while process.poll() is None:
                time.sleep(chance.random() * period_s)
                there = sorted(self._victims(here))
                if there:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(chance.choice(there), signal.SIGKILL)
                        kills += 1
            here.consume()
        return Made(f"{kills} kills", compared(here, expected))


class Ssh(Storms):
    """Many calls that go wrong in ssh itself, and in the programs on both sides of it."""

    def world(self, root: Path, judge: Judge) -> Round:
        return Distant(root, judge)

    def make(self, here: Round, chance: random.Random, expected: Mapping[str, Any]) -> Made:
        roles = chance.choice(
            [Role.SSH, Role.SSH, Role.SSH | Role.SUBMITTER, Role.SSH | EVERY_ROLE]
        )
        one_in = chance.choice([3, 30, 100, 300, 1000])
        if roles != Role.SSH:
            one_in = max(one_in, 100)
        storm = choose_storm(chance, roles)._replace(one_in=one_in, everywhere=True)
        return Made(str(storm), stormy(here, storm, expected))


class Distant(Round):
    """A world whose cluster is behind an sshd of its own."""

    def __init__(self, root: Path, judge: Judge) -> None:
        self._folder, self._stack = root / "sshd", contextlib.ExitStack()
        self._server = self._stack.enter_context(sshd.running(self._folder))
        remote = {
            "transport": "openssh",
            "host": "127.0.0.1",
            "port": self._server.port,
            "user": self._server.user,
            "key_file": self._server.key,
            "known_hosts": self._server.known_hosts,
            "python": sys.executable,
            "prologue": " ".join(["export", *(f"{k}={v}" for k, v in judge.variables().items())]),
        }
        scripts = {"scripts": TOOLS.parent / "on_hpc" / "scripts"}
        super().__init__(root / "w", judge, remote=remote, hpc_env=scripts, **PATIENT)

    def connections(self) -> set[int]:
        """Return the processes of ssh and those that sshd has started for them."""
        lines = command_lines()
        near = {p for p, line in lines if str(self._folder) in line and name_of(p) == "ssh"}
        below = sshd.descendants(self._server.pid)
        return near | {p for p in below if name_of(p).startswith("sshd")}

    def end(self) -> None:
        super().end()
        self._stack.close()


class Strace(Kind):
    """The kernel's own view: the n-th call of one kind fails, or kills, in each process."""

    CALLS: Mapping[str, int] = {
        "rename": 30,
        "fsync": 60,
        "openat": 900,
        "mkdir": 20,
        "unlink": 30,
        "linkat": 6,
        "pwrite64": 20,
        "write": 60,
        "ftruncate": 8,
        "close": 900,
    }
    """Of each call, about how many a process makes in a round."""

    FAULTS = ("signal=SIGKILL", "signal=SIGKILL", "error=EIO", "error=ENOSPC", "error=ESTALE")

    PASS_S = 90.0
    """strace ends with the last pilot that it follows, and one in which each thread's n-th call
    fails tries for minutes; no strace follows so long."""

    def __init__(self, roles: Role = EVERY_ROLE) -> None:
        super().__init__(roles)
        self._strace = tracer()

    def learn(self, here: Round) -> None:
        """Nothing is to be known."""

    def make(self, here: Round, chance: random.Random, expected: Mapping[str, Any]) -> Made:
        call = chance.choice(sorted(self.CALLS))
        at, fault = chance.randint(1, self.CALLS[call]), chance.choice(self.FAULTS)
        here.begin()
        inject = ["-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={at}"]
        here.before, here.pass_s = [*self._strace, *inject], self.PASS_S
        here.one_pass()
        here.before, here.pass_s = [], PASS_S
        # A call that failed outside of our files may have been one of Python's own.
        here.problems = [p for p in without_tracebacks(here.problems) if "hangs" not in p]
        return Made(f"{call} {at} {fault}", compared(here, expected))


KINDS: Mapping[str, type[Kind]] = {
    "single": Kind,
    "strange": Strange,
    "memory": Memory,
    "storms": Storms,
    "mixed": Mixed,
    "limits": Limits,
    "stops": Stops,
    "pauses": Pauses,
    "connections": Connections,
    "ssh": Ssh,
    "strace": Strace,
}


def two_slots(root: Path, lease_s: float) -> dict[str, Any]:
    """Return the settings of a world whose pilots have two slots, and are given up so soon."""
    scripts = hasten(root / "on_hpc", lease_s=lease_s)
    return {"hpc_env": {"scripts": scripts}, "pilot": {"slots": 2}, **PATIENT}


def without_tracebacks(problems: list[str]) -> list[str]:
    """Leave out tracebacks, for where Python itself cannot do what it must."""
    return [problem for problem in problems if not problem.startswith("a traceback")]


def tracer() -> list[str]:
    """Return strace, where it may trace here; skip elsewhere."""
    program = shutil.which("strace")
    if program is None:
        pytest.skip("needs strace: apt-get install strace")
    command = [program, "-f", "-qq", "-o", os.devnull]
    tried = subprocess.run([*command, "-e", "inject=sync:error=EIO", "true"], check=False)
    if tried.returncode != 0:
        pytest.skip("strace may not trace, or cannot inject, on this machine")
    return command
