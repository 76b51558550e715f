"""The simulation: passes, far ends and pilots as forks of one process, with real code and files.

A run is driven step by step: a pass with its far ends, then the pilots that it submitted, one after
the other, then the next pass. Every process is forked from the driver, which has everything loaded,
so a run to the end takes some tenths of a second. Replaced are the layer of effects (`seam`),
the channel between the sides (pipes between two forks), the batch system (a folder that lists its
pilots), and periods of waiting.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import re
import select
import shlex
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import journals
from faults.scenarios import Scenario
from faults.seam import FROZEN, STAGE, Fault, Seam, Shared, die
from faults.table import LATENESS
from world import World

from hpc_batch import far_end, hosts, journal, submitter
from hpc_batch.errors import HpcBatchError, RemoteError, RemoteTimeout
from hpc_cluster import (
    attempt,
    backoff,
    batch,
    claims,
    demand,
    effects,
    guard,
    handover,
    runner,
    session,
    store,
    work,
)
from hpc_cluster.batch.local import Local
from hpc_cluster.spool import Spool
from hpc_cluster.verbs import Verbs

ROUNDS = 12
"""Passes until everything is done, at most, faults included."""

STUCK_S = 60.0
"""No process of a run takes so long."""

BEAT_S = "1"
"""A pilot heartbeat; one that hangs for ten of them ends its pilot, so not shorter."""

SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER of prctl(2)."""


class Stuck(Exception):
    """Something did not end."""


WAITS: dict[tuple[Any, str], Any] = {
    (runner, "LOOK_S"): 0.02,
    (runner, "IDLE_S"): 0.02,
    (attempt, "AGAIN_S"): 0.01,
    (attempt, "TERM_SETTLE_S"): 0.0,
    (handover, "AGAIN_S"): 0.01,
    (guard, "DOZE_S"): 0.002,
    (guard, "PAUSES_S"): (0.0, 0.02, 0.05),
    (work, "PAUSES_S"): (0.001, 0.001, 0.001),
    (backoff, "DELAYS_S"): (0.0,) * 5,
    (claims, "STAGING_S"): 0.0,
    (demand, "STAGING_S"): 0.0,
    (store, "STILL_S"): 0,
    (Local, "absent_s"): 0.0,
    (journal, "SLACK"): -3000,
}
"""What is waited for, and how long here; and how long a journal grows before it is written anew."""

SWITCH_S = 0.0003
"""So long a thread computes while others wait; they do little here but hand each other work."""


def make_time_cheap() -> None:
    """Shorten what is waited for; nothing of it decides an order."""
    for (place, name), value in WAITS.items():
        assert hasattr(place, name), f"{place} has no {name} any more"
        setattr(place, name, value)
    sys.setswitchinterval(SWITCH_S)


class Simulation:
    """One run of a scenario in a folder of its own."""

    def __init__(
        self, root: Path, scenario: Scenario, shared: Shared, faults: tuple[Fault, ...] = ()
    ) -> None:
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        self.root, self.scenario, self.faults = root, scenario, faults
        self.world = World(root / "world", **scenario.keys)
        self.sched = root / "sched"
        self.sched.mkdir()
        self.shared = shared
        shared.clear()
        self.events_path, self.stderr_path = root / "events", root / "stderr"
        self._events = os.open(self.events_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.trace_path = root / "trace"
        self.trace: int | None = None
        self.frozen: list[tuple[int, str]] = []
        """Processes that stand still, and what they are."""
        self.codes: list[int] = []
        """Exit codes of the passes."""
        self.problems: list[str] = []
        self.config = self.world.config
        scenario.prepare(self.world)

    def close(self) -> None:
        for pid, _ in self.frozen:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self.frozen = []
        _reap_all()
        os.close(self._events)
        if self.trace is not None:
            os.close(self.trace)

    def start_tracing(self) -> None:
        """Note every effect from now on."""
        self.trace = os.open(self.trace_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    # ---- the run -----------------------------------------------------------------------------

    @property
    def fired(self) -> int:
        """How many faults have happened."""
        return self.shared.cells[STAGE]

    def steps(self) -> Iterator[str]:
        """Run to quiet; yields after each step, when nothing moves."""
        patient = any(fault.kind == "very-late" for fault in self.faults)
        for number in range(ROUNDS):
            self.scenario.between(self.world, number)
            late = list(self.frozen)
            if patient and not self.is_quiet():
                late = []
            self.run_pass()
            yield "pass"
            while number >= self.scenario.idle and self.run_pilot():
                yield "pilot"
            if late:
                # What stood still goes on after one more pass and its pilots.
                self.thaw(late)
                yield "late"
            # Cron starts another pass; what a killed one was writing is removed by that.
            if not self.frozen and self.is_quiet() and self.codes[-1] != -signal.SIGKILL:
                return
        left = [*journals.jobs(self.world.state / "journal"), *self.world.dropbox.glob("*")]
        raise Stuck(f"not done after {ROUNDS} passes: {sorted(map(str, left))}")

    def is_quiet(self) -> bool:
        """Tell whether every job is answered and forgotten."""
        return not journals.jobs(self.world.state / "journal") and all(
            self.world.finished(name).exists() for name in self.scenario.names
        )

    def run_pass(self) -> None:
        """Make one pass, with its far ends, until all of them have ended or stand still."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        pid = os.fork()
        if pid == 0:
            ours.close()
            self._become("pass")
            _leave(lambda: _pass(self.config, theirs, self._seam("pass")))
        theirs.close()
        far: dict[int, str] = {}
        deadline = time.monotonic() + STUCK_S
        while True:
            ready = select.select([ours], [], [], 0.005)[0]
            if ready:
                message, descriptors = b"", []
                with contextlib.suppress(ConnectionResetError):
                    message, descriptors, _, _ = socket.recv_fds(ours, 4096, 2)
                if not message:
                    break
                far[self._far_end(json.loads(message), descriptors, ours)] = "far end"
                with contextlib.suppress(BrokenPipeError):
                    ours.sendall(f"{list(far)[-1]}\n".encode())
            elif self.shared.cells[FROZEN] and _stopped(far):
                # A far end stands still: its near end dies of it, or is killed now.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                self.problems.append("a pass did not end")
        ours.close()
        self.codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        self._await(far)

    def _far_end(self, argv: list[str], descriptors: list[int], control: socket.socket) -> int:
        pid = os.fork()
        if pid == 0:
            control.close()
            self._become(argv[0], *descriptors)
            _replace_batch(self.sched, self._seam(argv[0]))
            _leave(lambda: session.main(argv))
        for descriptor in descriptors:
            os.close(descriptor)
        return pid

    def run_pilot(self) -> bool:
        """Run the next pilot in the queue to its end; False when there is none."""
        for path in sorted(self.sched.iterdir()):
            entry = json.loads(path.read_bytes())
            if entry["state"] != batch.QUEUED:
                continue
            path.write_text(json.dumps({**entry, "state": batch.RUNNING}))
            argv = [*entry["argv"], "--beat", BEAT_S]
            pid = os.fork()
            if pid == 0:
                log = os.open(entry["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                null = os.open(os.devnull, os.O_RDONLY)
                self._become("pilot", null, log, log)
                self._seam("pilot")
                os.setsid()
                _leave(lambda argv=argv: runner.main(argv))
            self._await({pid: "pilot"})
            path.write_text(json.dumps({**entry, "state": batch.ENDED}))
            return True
        return False

    def sweep_orphans(self) -> None:
        """Let the cluster's side remove what nobody knows, as if all of it were old."""
        pid = os.fork()
        if pid == 0:
            _leave(lambda: _sweep(str(self.world.workspace)))
        self._await({pid: "sweep"})

    def thaw(self, late: Sequence[tuple[int, str]]) -> None:
        """Let what stood still go on to its end."""
        for pid, what in late:
            self.frozen.remove((pid, what))
            os.kill(pid, signal.SIGCONT)
        self.shared.cells[FROZEN] = 0
        self._await(dict(late))

    def _await(self, pids: dict[int, str]) -> None:
        """Wait until processes, and what they left behind, have ended or stand still."""
        deadline = time.monotonic() + STUCK_S
        standing = {pid for pid, _ in self.frozen}
        waiting = dict(pids)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WUNTRACED | (os.WNOHANG if standing else 0))
            except ChildProcessError:
                return
            if pid == 0:
                if not waiting and not (_children() - standing):
                    return
                if time.monotonic() > deadline:
                    self.problems.append(f"did not end: {waiting}")
                    for stuck in _children() - standing:
                        os.kill(stuck, signal.SIGKILL)
                time.sleep(0.001)
            elif os.WIFSTOPPED(status):
                self.frozen.append((pid, waiting.pop(pid, "orphan")))
                standing.add(pid)
            else:
                waiting.pop(pid, None)
                self.frozen = [(p, what) for p, what in self.frozen if p != pid]
                standing.discard(pid)

    # ---- in a process that was forked --------------------------------------------------------

    def _become(self, role: str, *streams: int) -> None:
        """Take the streams of a process of this role; stderr is gathered for all."""
        if streams:
            os.dup2(streams[0], 0)
            os.dup2(streams[1], 1)
        if len(streams) < 3:
            errors = os.open(self.stderr_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(errors, 2)
            if not streams:
                os.dup2(errors, 1)
        else:
            os.dup2(streams[2], 2)

    def _seam(self, role: str) -> Seam:
        seam = Seam(self.shared, self.faults, self._events, self.trace)
        seam.before_answer = lambda source, target: self.scenario.wrong_with_answer(
            self.world, source, target
        )
        effects.start = _forking(effects.start, seam)
        seam.install(role)
        return seam


WARM: list[Path] = []
"""Where processes leave what they had to import and compile, while warming up."""


def warm_up(root: Path, scenarios: Sequence[Scenario]) -> None:
    """Import and compile once, here, what every process would load anew when it needs it."""
    WARM.append(root / "needed")
    for scenario in scenarios:
        run = Simulation(root / "warm", scenario, Shared())
        for _ in run.steps():
            pass
        run.close()
    for line in WARM.pop().read_text().splitlines():
        needed = json.loads(line)
        for name in needed["modules"]:
            importlib.import_module(name)
        for pattern, flags in needed["patterns"]:
            re.compile(pattern if isinstance(pattern, str) else bytes(pattern), flags)


def _leave_needed(path: Path) -> None:
    cache: Any = re._cache  # type: ignore[attr-defined]
    patterns = [
        (pattern if isinstance(pattern, str) else list(pattern), int(flags))
        for _, pattern, flags in list(cache)
    ]
    modules = [name for name, module in list(sys.modules.items()) if _is_imported(module)]
    with path.open("a") as file:
        file.write(json.dumps({"modules": modules, "patterns": patterns}) + "\n")


def _is_imported(module: Any) -> bool:
    """Tell whether a module can be had by its name; some stand there without having been found."""
    return getattr(module, "__spec__", None) is not None


def _leave(function: Any) -> None:
    """End this process with what a function returns, and nothing else of ours."""
    code = 70
    try:
        code = function()
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    except HpcBatchError as error:
        print(error, file=sys.stderr)
        code = error.exit_code
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        for path in WARM:
            _leave_needed(path)
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(code)


def _sweep(workspace: str) -> int:
    spool, _ = Spool.make(workspace)  # where a making was interrupted, the next session goes on
    for instance in os.listdir(spool.path("done")) or [b"0" * 8]:
        verbs = Verbs(spool, "0" * 16, os.fsdecode(instance), time.sleep)
        verbs.orphan_s = -10
        verbs.do("sweep", {"known": []})
    return 0


def _stopped(pids: dict[int, str]) -> bool:
    """Tell whether one of these processes stands still."""
    for pid in pids:
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/stat", "rb") as file:
                if file.read().rpartition(b")")[2].split()[0] in (b"T", b"t"):
                    return True
    return False


def _children() -> set[int]:
    me = os.getpid()
    with open(f"/proc/{me}/task/{me}/children", encoding="ascii") as file:
        return {int(word) for word in file.read().split()}


def _reap_all() -> None:
    for pid in _children():
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def become_the_driver() -> None:
    """Inherit what dead processes of a run leave behind."""
    ctypes.CDLL(None, use_errno=True).prctl(SUBREAPER, 1, 0, 0, 0)


# ---- the near end's host -----------------------------------------------------------------------


def _pass(config: Any, control: socket.socket, seam: Seam) -> int:
    host = Host(control, seam)
    hosts.connect = lambda remote, inherit=(): host
    far_end.command = lambda remote, env, mode, S, instance: json.dumps(
        [mode, "--workspace", env["workspace"], "--session", S, "--instance", instance]
    )
    return submitter.run(config, submitter.Options())


class Host:
    """hosts.Host: each command is a far end that the driver forks."""

    def __init__(self, control: socket.socket, seam: Seam) -> None:
        self.name, self.logins, self.channels = "simulation", 1, 0
        self._control, self.seam = control, seam
        self.pids: list[int] = []
        self.silent = False
        """The far ends stand still, and this end hears nothing in time."""
        import threading

        self._lock = threading.Lock()

    def log_in(self) -> None:
        """Nothing happens before the first channel."""

    def open(self, command: str) -> Channel:
        with self._lock:
            kind = self.seam.next("channel open", b"")
            if kind == "kill-before":
                die()
            if kind == "lost":
                raise RemoteError("no route to the cluster")
            to_far, from_far = os.pipe(), os.pipe()
            socket.send_fds(self._control, [command.encode()], [to_far[0], from_far[1]])
            os.close(to_far[0])
            os.close(from_far[1])
            self.pids.append(int(self._control.recv(64)))
            self.channels += 1
            if kind == "kill-after":
                die()
            return Channel(self, to_far[1], from_far[0])

    def stop_far_ends(self) -> None:
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def close(self) -> None:
        return


class Channel:
    """hosts.Channel over two pipes."""

    def __init__(self, host: Host, writer: int, reader: int) -> None:
        self._host, self._writer, self._reader = host, writer, reader
        self._closed = self._broken = False

    def write(self, data: bytes) -> None:
        kind = self._host.seam.next("channel write", b"")
        if kind == "kill-before":
            die()
        if kind == "lost":
            self._broken = True
        if self._broken or self._closed:
            raise RemoteError("the connection is lost")
        if kind in (*LATENESS, "time-out"):
            self._host.stop_far_ends()
            self._host.silent = True
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._writer, rest) :]
            except BrokenPipeError:
                raise RemoteError("the far end has ended") from None
        if kind in (*LATENESS, "kill-after"):
            die()
        if kind == "done-but-lost":
            self._broken = True
            raise RemoteError("the connection is lost")

    def read(self, n: int) -> bytes:
        kind = self._host.seam.next("channel read", b"")
        if kind == "kill-before":
            die()
        if kind == "lost":
            self._broken = True
        while not (self._broken or self._closed):
            if self._host.silent:
                raise RemoteTimeout("nothing came")
            if select.select([self._reader], [], [], 0.01)[0]:
                data = os.read(self._reader, n)
                if kind == "kill-after":
                    die()
                return data
        raise RemoteError("the connection is lost")

    def readinto(self, buffer: memoryview) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def set_timeout(self, seconds: float) -> None:
        return

    def finish(self) -> int | None:
        return None

    def stderr_tail(self) -> bytes:
        return b""

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            os.close(self._writer)


# ---- the batch system ----------------------------------------------------------------------------


def _replace_batch(sched: Path, seam: Seam) -> None:
    """Replace the run of the batch system's commands in this process."""

    def run(command: Any, timeout_s: float = 0) -> Any:
        words = command.argv
        kill = words[0] == "kill"
        verb = "cancel" if kill else {"start": "submit", "list": "query"}[words[5]]
        kind = seam.next(verb, b"")
        if kind == "kill-before":
            die()
        if kind in LATENESS:
            seam.on_late()
        if kind == "refused":
            return batch.Captured(1, "", "the batch system says no")
        if kind == "time-out":
            return batch.Captured(-9, "", "", True)
        answer = _do(sched, verb, words, command.stdin)
        if kind == "kill-after":
            die()
        if kind == "done-but-time-out":
            return batch.Captured(-9, "", "", True)
        return batch.Captured(0, answer, "")

    batch.run = run


def _do(sched: Path, verb: str, words: Sequence[str], stdin: bytes) -> str:
    if verb == "submit":
        pilot, log = words[6], words[7]
        argv = shlex.split(stdin.decode().rstrip().rpartition("\nexec ")[2])[2:]
        entry = {"state": batch.QUEUED, "argv": argv, "log": log}
        (sched / pilot).write_text(json.dumps(entry))
        return f"{pilot}.0.boot\n"
    if verb == "cancel":
        path = sched / words[2]
        if path.exists():
            entry = json.loads(path.read_bytes())
            path.write_text(json.dumps({**entry, "state": batch.ENDED}))
        return ""
    lines = []
    for word in words[6:]:
        pilot = word.partition("=")[0]
        path = sched / pilot
        if path.exists():
            lines.append(f"{pilot} {pilot}.0.boot {json.loads(path.read_bytes())['state']}")
    return "\n".join([*lines, "end"]) + "\n"


# ---- the pilot's guard ---------------------------------------------------------------------------


def _forking(start: Any, seam: Seam) -> Any:
    """Return what starts programs, the guard as a fork: a new Python would take long."""

    def begin(argv: Any, **options: Any) -> Any:
        if list(argv[1:3]) == ["-s", "-c"]:
            return _Guard(argv[-2:], seam)
        return start(argv, **options)

    return begin


class _Guard:
    """The guard as Popen shows it."""

    def __init__(self, words: Sequence[str], seam: Seam) -> None:
        reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(writer)
            os.dup2(reader, 0)
            os.setsid()
            signal.set_wakeup_fd(-1)
            seam.role = ""
            sys.argv = ["guard", *words]
            _leave(guard.main)
        os.close(reader)
        self.stdin = os.fdopen(writer, "wb", buffering=0)

    def wait(self) -> int:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        return 0
