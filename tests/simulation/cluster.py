"""A cluster in this process: a batch system, pilots that are the real runner, and jobs.

The batch system stands behind `batch.run`, the one place that runs its commands, and speaks the
dialect `local`. A pilot is the real program hpc_runner as an actor. Its jobs are small scripts of
four verbs, which change real files when they have run for their time:

    run SECONDS    copy FROM TO    write TEXT TO    exit CODE
"""

from __future__ import annotations

import errno
import itertools
import os
import shlex
import signal
import string
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from simulation.actors import Actor, Idle, Sync, current
from simulation.system import System

from hpc_cluster import attempt, batch, effects, files, handover, heartbeat, memory, pilot, runner
from hpc_cluster.batch.local import END

PIDS = itertools.count(1 << 24)
"""Above every real process id."""


class Job:
    """A job's process, as subprocess.Popen has it."""

    def __init__(self, argv: list[bytes], **keys: Any) -> None:
        me = current()
        assert me is not None
        cluster = Cluster.here
        self.pid = next(PIDS)
        self._system, self._folder = cluster.system, os.fsdecode(keys["cwd"])
        values: dict[str, str] = {}
        self._lines: list[list[str]] = []
        with open(argv[-1]) as file:
            for line in file:
                told = string.Template(line).safe_substitute(values)
                words = shlex.split(told, comments=True)
                name, sign, value = words[0].partition("=") if words else ("", "", "")
                if sign:
                    values[name] = value
                self._lines.append(words)
        seconds = sum(float(line[1]) for line in self._lines if line[:1] == ["run"])
        self._end = self._system.now + seconds
        self._rc: int | None = None
        self._system.processes[self.pid] = self
        cluster.pilot_of(me).groups.add(self.pid)

    def waitid(self) -> object | None:
        """Tell whether it has ended; what it does, it does now."""
        if self._rc is None and self._system.now >= self._end:
            self._rc = self._work()
        return None if self._rc is None else self

    def wait(self, timeout: float | None = None) -> int:
        if self._rc is None:
            raise subprocess.TimeoutExpired("job", timeout or 0)
        return self._rc

    def killpg(self, number: int) -> None:
        if self._rc is not None:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        if number in (signal.SIGTERM, signal.SIGKILL):
            self._rc = -number

    def _work(self) -> int:
        for line in self._lines:
            path = os.path.join(self._folder, line[-1]) if line else ""
            try:
                if line[:1] == ["copy"]:
                    with open(os.path.join(self._folder, line[1]), "rb") as file:
                        files.write_new(path, file.read())
                elif line[:1] == ["write"]:
                    files.write_new(path, line[1].encode())
                elif line[:1] == ["exit"]:
                    return int(line[1])
            except OSError:
                return 1
        return 0


class Bell:
    """A pilot's bell: signals that the batch system sends, and sleep."""

    def __init__(self, signals: object) -> None:
        me = current()
        assert me is not None
        self._pilot = Cluster.here.pilot_of(me)

    def ring(self) -> None:
        """It looks before it sleeps."""

    def sleep(self, seconds: float) -> None:
        me = current()
        assert me is not None
        me.wake = Cluster.here.system.now + seconds
        me.stop("sleep")

    def signals(self) -> Iterator[int]:
        while self._pilot.signals:
            yield self._pilot.signals.pop(0)


class Guard:
    """A pilot's guard: the test kills the jobs of a dead pilot itself."""

    def __init__(self, limit_s: float, pilot: str) -> None:
        """It has nothing to do."""

    def tell(self, word: str) -> None:
        """It knows."""

    def close(self) -> None:
        """It ends."""


class Heartbeat(heartbeat.Heartbeat):
    """A heartbeat whose thread is an actor."""

    def start(self) -> None:
        me = current()
        assert me is not None
        cluster = Cluster.here
        mine = cluster.pilot_of(me)
        mine.heart = Actor(me.steps, me.host, self.run)
        mine.heart.resume()

    def end(self) -> None:
        super().end()
        me = current()
        assert me is not None
        heart = Cluster.here.pilot_of(me).heart
        if heart is not None:
            heart.kill()


class Pause:
    """A heartbeat's event: waiting is sleeping."""

    def __init__(self) -> None:
        self._set = False

    def set(self) -> None:
        self._set = True

    def is_set(self) -> bool:
        return self._set

    def wait(self, seconds: float) -> None:
        me = current()
        assert me is not None
        me.wake = Cluster.here.system.now + seconds
        me.stop("sleep")


class Pilot:
    """One pilot of the batch system."""

    def __init__(self, system: System, name: str, argv: list[str]) -> None:
        self.name, self.native_id = name, f"{next(PIDS)}.1.boot"
        self.actor = Actor(system.steps, f"node-{name[:4]}", lambda: runner.main(argv))
        self.heart: Actor | None = None
        self.signals: list[int] = []
        self.groups: set[int] = set()
        self.paused = False
        self._system = system

    @property
    def alive(self) -> bool:
        return not self.actor.over

    def kill(self) -> None:
        """SIGKILL, and its guard ends its jobs."""
        self.actor.kill()
        if self.heart is not None:
            self.heart.kill()
        for group in self.groups:
            process = self._system.processes[group]
            if process._rc is None:
                process.killpg(signal.SIGKILL)

    def _beats(self) -> bool:
        """Tell whether it is time for a heartbeat."""
        heart = self.heart
        if heart is None or heart.over or not self.alive:
            return False
        return heart.why != "sleep" or heart.wake <= self._system.now

    def turn(self) -> str:
        """Let it run until it sleeps again, or has no steps left."""
        if self._beats() and self.heart is not None and self.heart.resume() == "steps":
            return "steps"
        why = self.actor.resume()
        if self.actor.over and self.heart is not None:
            self.heart.kill()
        return why


class Cluster:
    """The batch system and its pilots."""

    here: Cluster
    """The one of the test that runs."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.pilots: dict[str, Pilot] = {}
        self.silent = False
        """It answers nothing."""
        self.refuses = False
        self.unclear = 0
        """So many submissions are done and not acknowledged."""
        self.starts = True
        """Pilots begin at once; else they wait in the queue."""

    def pilot_of(self, actor: Actor) -> Pilot:
        return next(p for p in self.pilots.values() if actor in (p.actor, p.heart))

    def run(self, command: batch.Command, timeout_s: float = 0) -> batch.Captured:
        """Be `batch.run`."""
        if self.silent:
            return batch.Captured(1, "", "no answer", timed_out=True)
        words = list(command.argv)
        if words[0] == "kill":
            for one in self.pilots.values():
                if one.native_id.split(".")[0] == words[-1] and one.alive:
                    one.signals.append(signal.SIGTERM)
            return batch.Captured(0, "", "")
        verb = next(n for n, word in enumerate(words) if word in ("start", "list"))
        if words[verb] == "list":
            lines = [self._line(*word.split("=")) for word in words[verb + 1 :]]
            return batch.Captured(0, "\n".join([*filter(None, lines), END]) + "\n", "")
        if self.refuses:
            return batch.Captured(1, "", "refused")
        name, script = words[verb + 1], command.stdin.decode()
        argv = shlex.split(script.splitlines()[-1])[3:]
        self.pilots[name] = Pilot(self.system, name, argv)
        if self.unclear:
            self.unclear -= 1
            return batch.Captured(0, "", "", timed_out=True)
        return batch.Captured(0, self.pilots[name].native_id + "\n", "")

    def _line(self, name: str, known: str) -> str:
        found = self.pilots.get(name)
        if found is None or (not found.alive and not known):
            return ""
        return f"{name} {found.native_id} {batch.RUNNING if found.alive else batch.ENDED}"


def pilots_are_actors(patch: Any, folder: Path) -> None:
    """Let pilots run in this process, with next to no code to freeze.

    `patch` is pytest's monkeypatch.
    """
    package = folder / "package"
    for inner in pilot.PACKAGES:
        (package / inner).mkdir(parents=True, exist_ok=True)
    (package / "one.py").write_text("")
    patch.setattr(pilot, "__file__", str(package / "pilot.py"))
    patch.setattr(runner, "Bell", Bell)
    patch.setattr(runner, "Guard", Guard)
    patch.setattr(runner, "Heartbeat", Heartbeat)
    patch.setattr(heartbeat, "threading", SimpleNamespace(Event=Pause, Thread=Idle))
    for module in (attempt, handover):
        patch.setattr(module, "threads", SimpleNamespace(start=Sync.begun))
    patch.setattr(effects, "start", Job)
    patch.setattr(batch, "run", lambda *args, **keys: Cluster.here.run(*args, **keys))
    patch.setattr(memory, "kills", lambda: None)
