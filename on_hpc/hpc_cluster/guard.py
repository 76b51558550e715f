"""The guard: kills what a runner leaves behind.

A job runs in a process group of its own, so a runner that is killed outright would leave it
running. The guard is a small process of its own beside the runner. It reads lines from the runner
and holds the list of process groups; when the lines end, because the runner died, it kills them
all. It does the same when a heartbeat hangs for half the lease: the runner itself may then be stuck
in the same dead file system, and the guard touches none.

    +N   the group N began        -N   the group N has ended
    try  a heartbeat is written   ok   it was written
    end  the runner ends by itself

A runner may be killed between the start of a job and its word to the guard. So the guard of one
that died also looks for processes that carry the pilot's name in their environment, as all jobs do.
"""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from typing import Set

from hpc_cluster import clock, effects

DOZE_S = 0.02
"""The guard reads no more often, so that short jobs do not each wake it."""


PAUSES_S = (0.0, 0.1, 0.5, 2.0)
"""Before each look for jobs that it was not told of: one that is just being started has its
environment a moment later."""

VARIABLE = "HPC_BATCH_PILOT"
"""What a job finds the pilot's name in."""


class Guard:
    """The runner's end."""

    def __init__(self, limit_s: float, pilot: str) -> None:
        """Start the guard of a pilot; `limit_s`: how long a heartbeat may hang."""
        self._lock = threading.Lock()
        program = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        text = "import sys; sys.path.insert(0, sys.argv.pop(1)); "
        text += "from hpc_cluster.guard import main; main()"
        self._process = effects.start(
            [sys.executable, "-s", "-c", text, program, str(limit_s), pilot],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def tell(self, word: str) -> None:
        """Send one line, from any thread; a guard that is gone is no reason to stop."""
        with self._lock:
            if self._process.stdin is None or self._process.stdin.closed:
                return
            try:
                effects.send(self._process.stdin.fileno(), word.encode("ascii") + b"\n")
            except OSError:
                return

    def close(self) -> None:
        """End the guard; it kills the groups that it still knows."""
        self.tell("end")
        assert self._process.stdin is not None
        # RACE: the heartbeat may still be at its last write.
        with self._lock:
            self._process.stdin.close()
        self._process.wait()


def main() -> None:
    """Guard until the lines end, or a heartbeat hangs for too long."""
    limit_s, pilot = float(sys.argv[1]), sys.argv[2]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        # The batch system signals every process; who is asked to stop is the runner.
        signal.signal(number, signal.SIG_IGN)
    groups: Set[int] = set()
    rest, trying, ended = b"", 0.0, False
    while True:
        left = trying + limit_s - clock.monotonic() if trying else None
        if left is not None and left <= 0:
            break
        if not select.select([0], [], [], left)[0]:
            continue
        data = os.read(0, 1 << 16)
        if not data:
            break
        lines = (rest + data).split(b"\n")
        rest = lines.pop()
        for line in lines:
            if line == b"try":
                trying = trying or clock.monotonic()
            elif line == b"ok":
                trying = 0.0
            elif line == b"end":
                ended = True
            elif line[:1] == b"+":
                groups.add(int(line[1:]))
            elif line[:1] == b"-":
                groups.discard(int(line[1:]))
        time.sleep(DOZE_S)
    for group in sorted(groups):
        kill(group, signal.SIGKILL)
    for pause_s in () if ended else PAUSES_S:
        time.sleep(pause_s)
        for group in sorted(strays(pilot)):
            kill(group, signal.SIGKILL)


def strays(pilot: str, proc: str = "/proc") -> Set[int]:
    """Return the groups of all processes that have the pilot's name in their environment."""
    wanted, found = f"{VARIABLE}={pilot}".encode("ascii"), set()
    for pid in [int(name) for name in os.listdir(proc) if name.isdigit()]:
        try:
            with open(f"{proc}/{pid}/environ", "rb") as file:
                if wanted in file.read().split(b"\0"):
                    found.add(os.getpgid(pid))
        except OSError:
            # RACE: it ended, or it is somebody else's.
            continue
    return found


def kill(group: int, number: int) -> bool:
    """Send a signal to a process group; False when it has no member left."""
    try:
        effects.kill_group(group, number)
        return True
    except ProcessLookupError:
        # RACE: its last process ended just now.
        return False
