"""The guard: kills what a runner leaves behind.

A job runs in a process group of its own, so a runner that is killed outright would leave it
running. The guard is a small process of its own beside the runner. It reads lines from the runner
and holds the list of process groups; when the lines end, because the runner died, it kills them
all. It does the same when a heartbeat hangs for half the lease: the runner itself may then be stuck
in the same dead file system, and the guard touches none.

    +N   the group N began        -N   the group N has ended
    try  a heartbeat is written   ok   it was written
"""

import os
import select
import signal
import subprocess
import sys
from typing import Set

from hpc_cluster import clock


class Guard:
    """The runner's end."""

    def __init__(self, limit_s: float) -> None:
        """Start the guard; `limit_s`: how long a heartbeat may hang."""
        program = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        text = "import sys; sys.path.insert(0, sys.argv.pop(1)); "
        text += "from hpc_cluster.guard import main; main()"
        self._process = subprocess.Popen(
            [sys.executable, "-s", "-c", text, program, str(limit_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def tell(self, word: str) -> None:
        """Send one line; a guard that is gone is no reason to stop."""
        assert self._process.stdin is not None
        try:
            os.write(self._process.stdin.fileno(), word.encode("ascii") + b"\n")
        except OSError:
            return

    def close(self) -> None:
        """End the guard; it kills the groups that it still knows."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main() -> None:
    """Guard until the lines end, or a heartbeat hangs for too long."""
    limit_s = float(sys.argv[1])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        # The batch system signals every process; who is asked to stop is the runner.
        signal.signal(number, signal.SIG_IGN)
    groups: Set[int] = set()
    rest, trying = b"", 0.0
    while True:
        left = trying + limit_s - clock.monotonic() if trying else None
        if left is not None and left <= 0:
            break
        if not select.select([0], [], [], left)[0]:
            continue
        data = os.read(0, 4096)
        if not data:
            break
        lines = (rest + data).split(b"\n")
        rest = lines.pop()
        for line in lines:
            if line == b"try":
                trying = trying or clock.monotonic()
            elif line == b"ok":
                trying = 0.0
            elif line[:1] == b"+":
                groups.add(int(line[1:]))
            elif line[:1] == b"-":
                groups.discard(int(line[1:]))
    for group in sorted(groups):
        kill(group, signal.SIGKILL)


def kill(group: int, number: int) -> bool:
    """Send a signal to a process group; False when it has no member left."""
    try:
        os.killpg(group, number)
        return True
    except ProcessLookupError:
        # RACE: its last process ended just now.
        return False
