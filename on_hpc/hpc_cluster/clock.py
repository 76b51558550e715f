"""Times, and who looks at them.

Clocks of two hosts are never compared. Durations are read from one host's monotonic clock, which
starts anew at each boot: so a reading that is kept goes with the node's name and its boot's id.
Ages of files are taken from the file server's clock alone (`files.server_now`).
"""

import os
import re
import time
from typing import Optional


def iso(moment: Optional[float] = None) -> str:
    """Return a Unix time (default: now) as UTC text, for people."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def monotonic() -> float:
    """Return seconds since some moment of this boot, the same for all processes of the node."""
    return time.monotonic()


def node() -> str:
    """Return this node's short name, safe in a file's name."""
    return re.sub("[^A-Za-z0-9_-]", "_", os.uname().nodename.split(".")[0])[:64] or "node"


def boot() -> str:
    """Return the id of this boot; empty where the system has none."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def process_start(pid: int) -> Optional[int]:
    """Return when a process of this node began (ticks since boot); None when it is not alive.

    A zombie is not alive: it only waits for somebody to read its status. Raises OSError when the
    system does not say: a table that is full is no death.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The second field is the program's name in brackets and may hold anything.
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def unix() -> float:
    """Return this node's own Unix time, for people only."""
    return time.time()
