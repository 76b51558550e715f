"""The seam: in a process of the simulation every effect is counted, and one suffers a fault.

`install` replaces the functions of `hpc_cluster.effects` in this process. Effects of one name are
numbered for each role (pass, serve, data, pilot) over all processes of the role, in memory that all
share; after a fault the numbers begin anew, so that a second one can be placed behind the first.
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from faults.table import AGAIN, FAULTS, LATENESS

from hpc_cluster import effects

ROLES = ("pass", "serve", "data", "pilot")
ANY = "any"
"""A fault of any role: its effects are numbered over all."""

STAGE, FROZEN, FULL, TOTAL, FIRST = 0, 1, 2, 3, 4
"""Places in the shared memory: faults that have happened; somebody stands still; the disk is full
for one more write; the number of the last effect of all roles; of the first name of the first
role."""

EFFECTS = tuple(FAULTS)
CELLS = FIRST + len(ROLES) * len(EFFECTS)

DISK = (
    *("open", "write", "pwrite", "ftruncate", "fallocate", "close", "fsync", "syncfs"),
    *("fchown", "fchmod", "chmod", "utime"),
    *("rename", "link", "symlink", "unlink", "mkdir", "rmdir", "rmtree", "send", "kill_group"),
)
"""The functions of the layer that are replaced alike."""


class Fault(NamedTuple):
    """What happens to which effect."""

    role: str
    effect: str
    """Its name; of ANY role, whatever it is."""
    number: int
    kind: str

    def __str__(self) -> str:
        return f"{self.role}:{self.effect}:{self.number}:{self.kind}"


class Shared:
    """Memory of all processes of one run."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1 << 14)
        self.cells = memoryview(self._memory).cast("q")

    def clear(self) -> None:
        for place in range(CELLS):
            self.cells[place] = 0


class Seam:
    """What one process of the simulation does to its effects."""

    def __init__(
        self,
        shared: Shared,
        faults: tuple[Fault, ...],
        events: int,
        trace: int | None = None,
    ) -> None:
        self.shared, self.faults, self.role = shared, faults, ""
        self._events, self._trace = events, trace
        self.before_answer: Callable[[Path, Path], str] | None = None
        """Looks at an answer just before it becomes visible; returns what is wrong with it."""
        self.on_late: Callable[[], None] = self.stand_still

    # ---- what is counted ---------------------------------------------------------------------

    def next(self, effect: str, path: bytes) -> str:
        """Count an effect and return its fault, or nothing."""
        if not self.role or _is_dull(path):
            return ""
        cells = self.shared.cells
        mine = FIRST + ROLES.index(self.role) * len(EFFECTS) + EFFECTS.index(effect)
        cells[mine] += 1
        cells[TOTAL] += 1
        if self._trace is not None:
            line = f"{self.role} {cells[mine]} {effect} {os.fsdecode(path)}\n"
            os.write(self._trace, line.encode())
        stage = cells[STAGE]
        if stage >= len(self.faults):
            return ""
        fault = self.faults[stage]
        if fault.role == ANY:
            if cells[TOTAL] != fault.number:
                return ""
        elif (fault.role, fault.effect, fault.number) != (self.role, effect, cells[mine]):
            return ""
        cells[STAGE] += 1
        for place in range(TOTAL, CELLS):
            cells[place] = 0
        self.event(f"fault {fault} {effect} {os.fsdecode(path)}")
        return fault.kind

    def event(self, text: str) -> None:
        """Note what the invariants need to know of the past."""
        os.write(self._events, text.encode("utf-8", "surrogateescape") + b"\n")

    # ---- what happens ------------------------------------------------------------------------

    def suffer(self, kind: str, effect: str, act: Callable[[], Any], half: Any = None) -> Any:
        """Do an effect under a fault; `half` does half of it."""
        if kind == "kill-before":
            die()
        if kind in LATENESS:
            self.on_late()
            return act()
        if kind == "half":
            half()
            die()
        if kind == "nothing":
            return None
        if kind == "short":
            self.shared.cells[FULL] = 1
            return half()
        if kind == "kill-after" or kind.startswith("done-but"):
            result = act()
            if kind == "kill-after":
                die()
            code = {"done-but-again": AGAIN.get(effect, "EIO"), "done-but-full": "ENOSPC"}
            del result
            raise _error(code.get(kind, "EIO"))
        raise _error(kind)

    def stand_still(self) -> None:
        """Stop until somebody lets this process go on."""
        self.shared.cells[FROZEN] = 1
        os.kill(os.getpid(), signal.SIGSTOP)

    # ---- the layer ---------------------------------------------------------------------------

    def install(self, role: str) -> None:
        """Replace the layer in this process; without a role nothing is counted."""
        self.role = role
        for name in DISK:
            setattr(effects, name, self._wrapped(name, getattr(effects, name)))
        effects.start = self._start_wrapped(effects.start)

    def _wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def effect(*args: Any, **more: Any) -> Any:
            path = subject(name, args)
            cells = self.shared.cells
            if name in ("write", "pwrite") and cells[FULL] and self.role:
                cells[FULL] = 0
                raise _error("ENOSPC")

            def act() -> Any:
                if name == "rename":
                    self._watch(args[0], path)
                    result = function(*args, **more)
                    self._renamed(path)
                    return result
                return function(*args, **more)

            def half() -> Any:
                if name == "rmtree":
                    return _remove_half(args[0])
                data = memoryview(args[1])
                return function(args[0], data[: max(1, len(data) // 2)], *args[2:], **more)

            kind = self.next(name, path)
            return self.suffer(kind, name, act, half) if kind else act()

        return effect

    def _start_wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def start(argv: Any, **options: Any) -> Any:
            job = "work" in os.fsdecode(options.get("cwd") or "")

            def act() -> Any:
                if job:
                    self.event(f"start {os.fsdecode(options['env'][b'HPC_BATCH_JOB_ID'])}")
                return function(argv, **options)

            kind = self.next("start", os.fsencode(argv[0]))
            return self.suffer(kind, "start", act) if kind else act()

        return start

    def _watch(self, source: Any, target: bytes) -> None:
        if target.endswith(b".finished") and self.before_answer is not None:
            wrong = self.before_answer(Path(os.fsdecode(source)), Path(os.fsdecode(target)))
            if wrong:
                self.event(f"wrong {wrong}")

    def _renamed(self, target: bytes) -> None:
        self.event(f"renamed {os.fsdecode(target)}")


def subject(name: str, args: tuple[Any, ...]) -> bytes:
    """Return the path that an effect is about: of two, the second."""
    if name in ("kill_group", "send"):
        return b""
    first = args[1] if name in ("rename", "link", "symlink") else args[0]
    if isinstance(first, int):
        try:
            return os.fsencode(os.readlink(f"/proc/self/fd/{first}"))
        except OSError:
            return b""
    return os.fsencode(first)


def die() -> None:
    """SIGKILL this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def _is_dull(path: bytes) -> bool:
    """Leave out the log, and of a pilot's frozen code all files but one: each is like the other."""
    if path.endswith((b"/state/log", b"/log (deleted)")):
        return True
    return b"/hpc_cluster/" in path and not path.endswith(b"/hpc_cluster/__init__.py")


def _error(name: str) -> OSError:
    code = getattr(errno, name)
    return OSError(code, os.strerror(code))


def _remove_half(path: Any) -> None:
    """Remove what a folder holds, and of it every second name only."""
    try:
        entries = sorted(os.listdir(path))
    except OSError:
        return
    for name in entries[::2]:
        inner = os.path.join(path, name)
        if os.path.isdir(inner) and not os.path.islink(inner):
            shutil.rmtree(inner, ignore_errors=True)
        else:
            os.unlink(inner)
