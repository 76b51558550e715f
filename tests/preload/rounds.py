"""Rounds: the same jobs again and again in one world, each time with something that goes wrong.

A round drops jobs of every kind, arms a fault, makes passes with the programs as they are, takes
the fault away, makes passes until all is quiet, and compares with a round that nothing disturbed:
the same answers, once each, the same outputs, and nothing left over in any folder.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import journals
from preload.library import (
    DISK,
    ERRORS,
    EVERY_CALL,
    LOOKING,
    MACHINE,
    STRANGE,
    Act,
    Call,
    Judge,
    Role,
)
from soak.clocks import hasten
from world import World

TOOLS = Path(__file__).resolve().parents[2] / "tools"
VARYING = ("id", "start", "end", "attempts", "node", "pilot", "times")
PASS_S = 120.0

QUIET_S = 240.0
"""All must be quiet so long after the last fault; a back-off of a minute is among it."""

LASTING = 1 << 20

STORM_S = 4.0
"""Between two passes of a storm, while pilots live."""

AT_WORK = (Role.SUBMITTER, Role.SESSION | Role.LOCAL, Role.RUNNER, Role.RUNNER | Role.GUARD)
"""The programs that a storm takes hold of, one after the other or all at once."""

PATIENT = {"limits": {"attempts": "100", "starts": "1000"}}
"""Sections of a configuration with which a storm gives no job up."""

HOUR_S, DAY_S, YEAR_S = 3600, 24 * 3600, 365 * 24 * 3600

LEAPS_S = (-10 * YEAR_S, -3 * DAY_S, -2 * HOUR_S, 2 * HOUR_S, 3 * DAY_S, 10 * YEAR_S)
"""Leaps of clocks."""

ARRIVING = "inputs/[0-9a-f]*.*"

SOMETIMES = {"swept.json", "trouble.json", "ahead.json", "failed.json"}
"""Files of the state that faults may bring or delay."""


class Fault(NamedTuple):
    """One fault, as `Judge.arm` takes it."""

    roles: Role
    calls: Call
    act: Act
    at: int
    error: int = 0
    times: int = 1
    where: str = "*"

    def __str__(self) -> str:
        name = f"Fault(Role({int(self.roles)}), Call({int(self.calls)}), Act({int(self.act)}), "
        return name + f"{self.at}, {self.error}, {self.times}, {self.where!r})"


class Storm(NamedTuple):
    """A storm, as `Judge.storm` takes it, and how many passes it lasts."""

    roles: Role
    calls: Call
    one_in: int
    seed: int
    everywhere: bool
    passes: int

    def __str__(self) -> str:
        name = f"Storm(Role({int(self.roles)}), Call({int(self.calls)}), {self.one_in}, "
        return name + f"{self.seed}, {self.everywhere}, {self.passes})"


class Round(World):
    """A world whose programs run under a judge."""

    def __init__(self, root: Path, judge: Judge, **keys: Mapping[str, Any]) -> None:
        super().__init__(root, **keys)
        self.judge = judge
        self.number = 0
        self.answers: dict[str, dict[str, Any]] = {}
        self.problems: list[str] = []
        self.more: dict[str, str] = {}
        """More of the environment of passes."""
        self.before: list[str] = []
        """A program that starts the passes."""
        self.pass_s = PASS_S
        """A pass that takes longer hangs."""

    # ---- jobs --------------------------------------------------------------------------------

    def begin(self) -> None:
        """Drop the jobs of a new round."""
        self.number += 1
        self.answers, self.problems = {}, []
        source = self.root / "in"
        source.mkdir(exist_ok=True)
        for path in [*source.iterdir(), *self.out.iterdir()]:
            path.unlink()
        for name, size in (("small", 10), ("big", 100_000)):
            (source / name).write_text(f"{name} {self.number:06d}\n" * size)
        (self.out / "over").write_text("older")
        (self.out / "first").write_text("older")
        (self.out / "none").write_text("older")
        out = {name: str(self.out / name) for name in ("over", "large", "first", "second", "none")}
        small, big = {"source": str(source / "small")}, {"source": str(source / "big")}
        self._drop("over", "copy", input_map=small, output_map={"target": out["over"]})
        self._drop("big", "copy", input_map=big, output_map={"target": out["large"]})
        both = {"first": out["first"], "second": out["second"]}
        self._drop("two", "two", output_map=both)
        self._drop("none", "nothing", output_map={"target": out["none"]})
        self._drop("fail", "fail")
        self._drop("bad", "copi")
        lasting = {"target": str(self.out / "never")}
        self._drop("cancel", "sleep", args={"seconds": "600"}, output_map=lasting)
        (self.dropbox / f"cancel{self.number}.job.cancel").touch()

    def _drop(self, name: str, script: str, **parts: Any) -> None:
        self.drop(f"{name}{self.number}", script, **parts)

    NAMES = ("over", "big", "two", "none", "fail", "bad", "cancel")

    # ---- programs ----------------------------------------------------------------------------

    def one_pass(self) -> int:
        """Make one pass with the program as it is; return its code, negative for a signal."""
        command = [*self.before, sys.executable, str(TOOLS / "hpc_submitter"), str(self.ini)]
        done = subprocess.Popen(
            command,
            env={**self.judge.environment(), **self.more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            said = done.communicate(timeout=self.pass_s)[0].decode(errors="replace")
        except subprocess.TimeoutExpired:
            os.killpg(done.pid, signal.SIGKILL)
            done.communicate()
            self.problems.append("a pass hangs")
            said = ""
        if re.search("^Traceback", said, re.MULTILINE):
            self.problems.append(f"a traceback: {said[-3000:]}")
        self.said = said
        self.consume()
        return done.returncode

    def consume(self) -> None:
        """Take the answers away, as clients do."""
        for path in self.dropbox.glob("*.finished*"):
            name = path.name.partition(f"{self.number}.job")[0]
            if name in self.answers or not path.name.endswith(".finished"):
                self.problems.append(f"answered twice: {path.name}")
            self.answers[name] = self._node(path)
            path.unlink()

    def _node(self, path: Path) -> dict[str, Any]:
        import yaml

        try:
            node = yaml.safe_load(path.read_bytes())["job"]
            node["outputs"] = {key: sorted(output) for key, output in node["outputs"].items()}
            late = ("message", "rc") if node["reason"] == "cancelled" else ()
            return {k: v for k, v in node.items() if k not in (*VARYING, *late)}
        except (yaml.YAMLError, KeyError, TypeError) as error:
            self.problems.append(f"a partial answer: {path.name}: {error}")
            return {}

    def is_quiet(self) -> bool:
        """Tell whether all is answered, and nothing under way."""
        return (
            len(self.answers) >= len(self.NAMES)
            and not journals.jobs(self.state / "journal")
            and not self.pilots()
        )

    def settle(self) -> None:
        """Make passes until all is quiet."""
        end = time.monotonic() + QUIET_S
        while not self.is_quiet():
            if time.monotonic() > end:
                self.problems.append("never quiet: " + self.picture()[-6000:])
                return
            code = self.one_pass()
            if code not in (0, 75, 69):
                self.problems.append(f"exit {code}: {self.said[-2000:]}")
            time.sleep(0.05)
        self.one_pass()
        if self.said:
            # What was told as a trouble is over now; the next pass must have nothing to say.
            self.one_pass()
        if self.said:
            self.problems.append(f"not silent in the end: {self.said}")

    # ---- what is left ------------------------------------------------------------------------

    def forget_beginnings(self) -> None:
        """Have the far end remove what killed sessions began to receive, as it does in two days."""
        if not list(self.workspace.glob(ARRIVING)):
            return
        self.judge.server(2 * DAY_S, int(time.time()) + 1)
        time.sleep(1.1)  # what is changed from now on was changed the day after tomorrow
        words = [sys.executable, "-m", "hpc_cluster.session", "sweep", "--args", '{"known": []}']
        subprocess.run(
            [*words, "--workspace", str(self.workspace)],
            cwd=TOOLS.parent / "on_hpc",
            env=self.judge.environment(),
            stdout=subprocess.DEVNULL,
            check=True,
        )
        self.judge.server(0, 0)

    def outcome(self) -> dict[str, Any]:
        """Return everything that must not depend on faults."""
        inner = self.dropbox / ".hpc_batch"
        space = self.workspace
        found = {
            "answers": self.answers,
            "outputs": {p.name: p.read_text()[:60] for p in sorted(self.out.iterdir())},
            "dropbox": sorted(os.listdir(self.dropbox)),
            "inner": sorted(os.listdir(inner)),
            "state": sorted(set(os.listdir(self.state)) - SOMETIMES),
            "cluster": {
                name: sorted(os.listdir(space / name))
                for name in ("incoming", "ready", "running", "jobs")
            },
            "done": [p.name for p in sorted(space.glob("done/*/*"))],
            "arriving": [p.name for p in space.glob(ARRIVING)],
            "slots": {p.name: len(os.listdir(p)) for p in space.glob("slots/*")},
        }
        text = json.dumps(found, sort_keys=True)
        for name in self.NAMES:
            text = text.replace(f"{name}{self.number}", name)
        text = text.replace(f" {self.number:06d}", "")
        result = json.loads(text.replace(str(self.root), "ROOT"))
        assert isinstance(result, dict)
        return result

    def end(self) -> None:
        self.judge.disarm()
        super().end()


def hastened(folder: Path, judge: Judge) -> Round:
    """Return a world for storms, in a folder: its far end's clocks are faster, for it backs off."""
    scripts = hasten(folder / "on_hpc", lease_s=60.0)
    return Round(folder / "w", judge, hpc_env={"scripts": scripts}, pilot={"slots": 2}, **PATIENT)


def calm(here: Round) -> dict[str, Any]:
    """Make a round that nothing disturbs; return its outcome."""
    here.begin()
    here.settle()
    assert not here.problems, here.problems
    return here.outcome()


def calls(here: Round, which: Call = EVERY_CALL) -> dict[tuple[Role, Call], int]:
    """Make another one, and return how many calls of each kind it took."""
    here.judge.watch(which)
    calm(here)
    here.judge.disarm()
    return here.judge.seen()


def disturbed(here: Round, fault: Fault, expected: Mapping[str, Any]) -> list[str]:
    """Make a round with one fault; return what is wrong in the end."""
    passes = 3 if fault.times == LASTING else 1
    return judged(here, expected, lambda: here.judge.arm(*fault), passes)


def judged(
    here: Round, expected: Mapping[str, Any], disturb: Callable[[], None], passes: int
) -> list[str]:
    """Make a round whose first passes are disturbed; return what is wrong in the end."""
    here.begin()
    disturb()
    for number in range(6):
        here.one_pass()
        if here.is_quiet():
            break
        deadline = time.monotonic() + 1.0
        while here.pilots() and not here.judge.hit and time.monotonic() < deadline:
            time.sleep(0.02)
        if number + 1 >= passes and here.judge.hit and not here.pilots():
            break
    here.judge.disarm()
    return compared(here, expected)


def compared(here: Round, expected: Mapping[str, Any]) -> list[str]:
    """Make passes until all is quiet; return what is wrong then."""
    here.settle()
    here.forget_beginnings()
    found = here.outcome()
    for key, value in expected.items():
        if found[key] != value:
            here.problems.append(f"{key}: {difference(value, found[key])}")
    return here.problems


def stormy(here: Round, storm: Storm, expected: Mapping[str, Any]) -> list[str]:
    """Make a round whose first passes are made in a storm; return what is wrong in the end."""
    here.begin()
    here.judge.storm(*storm[:4], everywhere=storm.everywhere)
    for _ in range(storm.passes):
        here.one_pass()
        deadline = time.monotonic() + STORM_S
        while here.pilots() and time.monotonic() < deadline:
            time.sleep(0.02)
        if here.is_quiet():
            break
    here.judge.disarm()
    problems = compared(here, expected)
    # What failed everywhere may have been one of Python's own files.
    return [p for p in problems if not (storm.everywhere and p.startswith("a traceback"))]


def difference(wanted: Any, found: Any) -> str:
    """Say shortly how two values differ."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        keys = [k for k in {**wanted, **found} if wanted.get(k) != found.get(k)]
        return "; ".join(f"{k}: {difference(wanted.get(k), found.get(k))}" for k in keys)
    return f"wanted {wanted!r}, found {found!r}"


def choose(chance: random.Random, seen: Mapping[tuple[Role, Call], int]) -> Fault:
    """Choose a fault among what an undisturbed round does."""
    (role, call), number = chance.choice(sorted(seen.items()))
    act = chance.choice([Act.KILL_BEFORE, Act.KILL_AFTER, Act.FAIL, Act.FAIL, Act.DONE_BUT_ERROR])
    if call in (Call.WRITE, Call.READ) and chance.random() < 0.3:
        act = Act.SHORT
    if call == Call.LIST and chance.random() < 0.4:
        act = Act.HIDE
    if call == Call.FORK:
        act = Act.FAIL
    error = chance.choice(ERRORS[call])
    if act == Act.DONE_BUT_ERROR:
        error = chance.choice([e for e in ERRORS[call] if e in DISK] or list(ERRORS[call]))
    times = chance.choice([1, 1, 1, 1, 2, 5, LASTING])
    if act in (Act.KILL_BEFORE, Act.KILL_AFTER):
        times = chance.choice([1, 1, 2])
        if role == Role.RUNNER:
            times = 1
        if chance.random() < 0.3:
            return Fault(role, EVERY_CALL, act, chance.randint(1, _total(seen, role)), 0, times)
    return Fault(role, call, act, chance.randint(1, number), error, times)


def choose_strange(chance: random.Random, seen: Mapping[tuple[Role, Call], int]) -> Fault:
    """Choose a call that says once what is not true."""
    (role, call), number = chance.choice(sorted(seen.items()))
    return Fault(role, call, Act.FAIL, chance.randint(1, number), chance.choice(STRANGE[call]))


def choose_storm(chance: random.Random, roles: Role | None = None) -> Storm:
    """Choose a storm; without roles, choose those as well."""
    roles = roles or chance.choice([*AT_WORK, *AT_WORK, sum(AT_WORK, Role(0))])
    two = chance.choice(list(ERRORS)) | chance.choice(list(ERRORS))
    calls = chance.choice([LOOKING, LOOKING, MACHINE, EVERY_CALL, EVERY_CALL & ~LOOKING, two])
    one_in = chance.choice([50, 100, 200, 300, 500, 1000])
    if roles & Role.RUNNER and not roles & Role.SUBMITTER:
        one_in //= chance.choice([1, 5])  # which makes few calls
    if calls in (MACHINE, two):
        one_in = chance.choice([2, 3, 5, 10, 30, 100])
    seed = chance.randrange(1 << 30)
    return Storm(roles, calls, one_in, seed, chance.random() < 0.25, chance.randint(2, 8))


def _total(seen: Mapping[tuple[Role, Call], int], role: Role) -> int:
    return sum(number for (whose, _), number in seen.items() if whose == role)
