"""The nemesis: kills and stops processes at random moments, and fills disks for a while.

Each evil deed is written into the history before it is done.
"""

from __future__ import annotations

import collections
import contextlib
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from soak.history import History
from soak.processes import Process, Processes

Deed = Callable[[], bool]
"""Does something evil; False where there was no victim."""


class Nemesis(threading.Thread):
    """Does a deed now and then until `over` is set or it has done enough; undoes what lasts."""

    def __init__(
        self,
        machines: list[Processes],
        history: History,
        every_s: float,
        lease_s: float,
        deeds: int,
        seed: int,
    ) -> None:
        """Do `deeds` at most, one each `every_s` seconds on average."""
        super().__init__(name="nemesis", daemon=True)
        self.over = threading.Event()
        self.done: collections.Counter[str] = collections.Counter()
        self.failure: BaseException | None = None
        self.rests = 0
        self._rests_until = 0.0
        self.stopped: set[str] = set()
        """Pilots that stood still for a while: another may have got their slot."""
        self.chance = random.Random(f"{seed} nemesis")
        self.history = history
        self._machines, self._every_s, self._lease_s = machines, every_s, lease_s
        self._most = deeds
        self._undo: list[tuple[float, Callable[[], None]]] = []
        self.deeds: dict[str, tuple[float, Deed]] = {
            "kill a submitter": (3, lambda: self._kill("submitter")),
            "kill a submitter and all it started": (3, self._kill_pass),
            "kill a session's far end": (2, lambda: self._kill("session")),
            "kill an ssh": (1, lambda: self._kill("ssh")),
            "kill an sshd's child": (2, lambda: self._kill("login")),
            "kill a runner": (2, self._kill_runner),
            "kill a runner with a job": (3, self._kill_busy_runner),
            "kill a guard": (1, lambda: self._kill("guard")),
            "kill a job": (3, self._kill_job),
            "stop a runner for a moment": (1, lambda: self._pause("runner", 0.5, 4)),
            "stop a runner beyond its lease": (0.5, self._stop_beyond),
            "stop a submitter": (1, lambda: self._pause("submitter", 0.5, 5)),
            "stop a session's far end": (1, lambda: self._pause("session", 0.5, 5)),
        }

    def run(self) -> None:
        """Do evil until it is over."""
        try:
            while sum(self.done.values()) < self._most and not self.over.wait(
                self.chance.expovariate(1 / self._every_s)
            ):
                self._mend()
                if time.monotonic() < self._rests_until:
                    continue
                names = list(self.deeds)
                name = self.chance.choices(names, [self.deeds[n][0] for n in names])[0]
                if self.deeds[name][1]():
                    self.done[name] += 1
        except BaseException as error:
            self.failure = error
            raise
        finally:
            self._mend(everything=True)

    def rest(self, seconds: float) -> None:
        """Do nothing for a while: on a slow machine no pass may live long enough."""
        self.rests += 1
        self._rests_until = time.monotonic() + seconds

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Undo a deed after so long, or when it is over."""
        self._undo.append((time.monotonic() + seconds, act))

    def at_end(self, act: Callable[[], None]) -> None:
        """Undo something when it is over."""
        self._undo.append((float("inf"), act))

    def _mend(self, *, everything: bool = False) -> None:
        for due, act in list(self._undo):
            if everything or time.monotonic() >= due:
                self._undo.remove((due, act))
                act()

    # ---- deeds -------------------------------------------------------------------------------

    def alive(self) -> set[str]:
        """Return the pilots that are seen alive and were never stopped."""
        seen = (p for m in self._machines for p in m.seen() if p.what == "runner")
        return {process.pilot for process in seen} - self.stopped

    def victim(self, what: str) -> tuple[Processes, Process] | None:
        """Choose a process of a kind."""
        found = [(m, p) for m in self._machines for p in m.seen() if p.what == what]
        if what in ("runner", "job"):
            # A process that one of them is just starting still looks like its parent.
            alike = {(m, p.pid) for m, p in found}
            found = [(m, p) for m, p in found if (m, m.parent(p.pid)) not in alike]
        return self.chance.choice(found) if found else None

    def _kill(self, what: str) -> bool:
        chosen = self.victim(what)
        if chosen is None:
            return False
        machine, process = chosen
        self.history.note("kill", what=what, pid=process.pid)
        machine.send(process.pid, signal.SIGKILL)
        return True

    def _kill_pass(self) -> bool:
        chosen = self.victim("submitter")
        if chosen is None:
            return False
        machine, process = chosen
        self.history.note("kill", what="pass", pid=process.pid)
        kin = set(machine.descendants(process.pid))
        started = [p.pid for p in machine.seen() if p.pid in kin and p.what in ("session", "ssh")]
        for pid in (process.pid, *started):
            machine.send(pid, signal.SIGKILL)
        return True

    def _kill_runner(self) -> bool:
        chosen = self.victim("runner")
        if chosen is None:
            return False
        machine, process = chosen
        self.history.note("kill", what="runner", pid=process.pid, pilot=process.pilot)
        machine.send(process.pid, signal.SIGKILL)
        return True

    def _kill_busy_runner(self) -> bool:
        """Kill the runner of a job that is seen running."""
        chosen = self.victim("job")
        known = chosen[0].job(chosen[1]) if chosen else None
        if chosen is None or known is None:
            return False
        machine, job = chosen
        pid = machine.parent(job.pid)
        runners = {p.pid: p.pilot for p in machine.seen() if p.what == "runner"}
        if pid is None or runners.get(pid) != known[2]:
            return False  # a process that the job started, or whose runner is gone
        self.history.note("kill", what="runner", pid=pid, pilot=known[2])
        machine.send(pid, signal.SIGKILL)
        return True

    def _kill_job(self) -> bool:
        chosen = self.victim("job")
        known = chosen[0].job(chosen[1]) if chosen else None
        if chosen is None or known is None:
            return False
        machine, process = chosen
        job, attempt, _ = known
        self.history.note("kill", what="job", pid=process.pid, job=job, attempt=attempt)
        machine.send(process.pid, signal.SIGKILL)
        return True

    def _pause(self, what: str, least_s: float, most_s: float) -> bool:
        chosen = self.victim(what)
        if chosen is None:
            return False
        machine, process = chosen
        seconds = self.chance.uniform(least_s, most_s)
        pilot = process.pilot if what == "runner" else None
        if pilot is not None:
            self.stopped.add(pilot)
        self.history.note("stop", what=what, pid=process.pid, seconds=seconds, pilot=pilot)
        machine.send(process.pid, signal.SIGSTOP)
        self.later(seconds, lambda: machine.send(process.pid, signal.SIGCONT))
        return True

    def _stop_beyond(self) -> bool:
        return self._pause("runner", 1.2 * self._lease_s, 1.6 * self._lease_s)

    def fill(self, folder: Path) -> bool:
        """Fill the disk that a folder is on, for a few seconds."""
        ballast = folder / ".ballast"
        if ballast.exists():
            return False
        seconds = self.chance.uniform(1, 6)
        self.history.note("fill", folder=str(folder), seconds=seconds)
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 20))
        self.later(seconds, lambda: ballast.unlink(missing_ok=True))
        return True
