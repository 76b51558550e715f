"""The local batch system: a pilot is a background process on this node.

It has a session of its own, so that it outlives the pass and the SSH session that started it. Its
native id is its process id, the time it began and the boot, so that a reused number is never taken
for it. A node knows only its own processes: a pilot of another node is absent here, and its
heartbeat decides.

Run as a program, this module is the two small commands that the dialect hands out: `start` (script
on standard input) and `list`.
"""

import os
import subprocess
import sys
from typing import Dict, List, Optional, Sequence

from hpc_cluster import clock, effects, files
from hpc_cluster.batch import (
    ENDED,
    RUNNING,
    Answer,
    Captured,
    Command,
    Dialect,
    PilotState,
    Refused,
    Request,
    Submitted,
    Unclear,
    Wanted,
    last_lines,
    script,
)

MARK = "hpc_batch-pilot="
"""Begins the last argument of the shell that starts a pilot: the pilot is found by it in a
prologue."""

END = "end"
"""The last line of a complete list."""

PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from hpc_cluster.batch.local import main; sys.exit(main())"
)


class Local(Dialect):
    """Processes of this node."""

    absent_s = 10.0
    """Starting is immediate: a process that is not there after this never was started."""

    def submit(self, request: Request) -> Command:
        """Return the command that starts a pilot in the background."""
        return _command(["start", request.pilot, request.log], script(request))

    def submitted(self, captured: Captured) -> Answer:
        """Return what it printed: the native id."""
        words = captured.stdout.split()
        if captured.timed_out:
            return Unclear("starting the pilot took too long")
        if captured.rc == 0 and len(words) == 1:
            return Submitted(words[0])
        if captured.rc <= 0:
            return Unclear("starting the pilot was interrupted")
        return Refused(last_lines(captured.stderr) or "the pilot could not be started")

    def query(self, wanted: Sequence[Wanted]) -> Command:
        """Return the command that lists these pilots, as far as this node knows them."""
        return _command(["list"] + [f"{w.pilot}={w.native_id or ''}" for w in wanted])

    def listed(self, captured: Captured) -> Optional[Dict[str, PilotState]]:
        """Return the states by P. The list ends with a line of its own, or it is not complete."""
        lines = captured.stdout.splitlines()
        if captured.rc != 0 or captured.timed_out or lines[-1:] != [END]:
            return None
        found: Dict[str, PilotState] = {}
        for line in lines[:-1]:
            pilot, known, state = line.split()
            found[pilot] = PilotState(state, known, None, clock.node())
        return found

    def cancel(self, native_id: str) -> Command:
        """Return the command that asks the process to stop."""
        return Command(("kill", "-TERM", native_id.split(".")[0]))


def native_id(pid: int) -> Optional[str]:
    """Return pid.start.boot of a live process of this node."""
    start = clock.process_start(pid)
    return None if start is None else f"{pid}.{start}.{clock.boot()}"


def main(argv: Optional[List[str]] = None) -> int:
    """Start a pilot, or list pilots."""
    words = sys.argv[1:] if argv is None else argv
    if words[0] == "start":
        return _start(words[1], os.fsencode(words[2]), sys.stdin.buffer.read())
    lines = []
    for pilot, _, known in [word.partition("=") for word in words[1:]]:
        if known.endswith("." + clock.boot()):
            pid = int(known.split(".")[0])
            alive = known.startswith(f"{pid}.{clock.process_start(pid)}.")
            lines.append(f"{pilot} {known} {RUNNING if alive else ENDED}")
        elif not known:
            lines += [f"{pilot} {found} {RUNNING}" for found in _search(pilot)]
    print("\n".join(lines + [END]))
    return 0


def _command(words: List[str], stdin: bytes = b"") -> Command:
    """Return the command that runs this module with these words."""
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return Command((sys.executable, "-s", "-c", PROGRAM, package) + tuple(words), stdin)


def _start(pilot: str, log: bytes, text: bytes) -> int:
    """Start the script in a session of its own, without any stream of ours."""
    shell = "/bin/bash" if os.access("/bin/bash", os.X_OK) else "/bin/sh"
    output = files.open_append(log)
    try:
        process = effects.start(
            [shell, "-c", text, "hpc_batch", MARK + pilot],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=os.path.dirname(log),
            start_new_session=True,
        )
    finally:
        files.close(output)
    # It is meant to outlive us; Popen would warn that nobody waits for it.
    process.returncode = 0
    try:
        print(native_id(process.pid) or f"{process.pid}.0.{clock.boot()}")
    except OSError as error:
        print(error, file=sys.stderr)  # it is looked for by its name
    return 0


def _search(pilot: str) -> List[str]:
    """Return the native id of a pilot by its nonce in the arguments of this account's processes."""
    marks = (b"\0--pilot\0" + pilot.encode("ascii") + b"\0", (MARK + pilot).encode("ascii") + b"\0")
    for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                arguments = b"\0" + file.read()
        except OSError:
            # RACE: it ended since it was listed, or is somebody else's.
            continue
        known = native_id(pid) if any(mark in arguments for mark in marks) else None
        if known is not None and pid != os.getpid():
            return [known]
    return []
