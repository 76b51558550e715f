"""Whether the kernel killed something for want of memory.

A job that the kernel's out-of-memory killer ends looks like any job ended by SIGKILL. The control
group that the pilot runs in counts such kills; only when that number grew while a job ran is it
called out of memory. Where there are no control groups the question stays open.
"""

from typing import List, Optional

from hpc_cluster import files


def kills(proc: str = "/proc/self/cgroup", mount: str = "/sys/fs/cgroup") -> Optional[int]:
    """Return how many processes were killed for want of memory in our control group; or None."""
    for line in _lines(proc):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            found = _count(f"{mount}{path}/memory.events")
        elif "memory" in controllers.split(","):
            found = _count(f"{mount}/memory{path}/memory.oom_control")
        else:
            continue
        if found is not None:
            return found
    return None


def killed_since(before: Optional[int]) -> bool:
    """Tell whether more were killed than `before`, which `kills` has returned."""
    now = kills()
    return now is not None and before is not None and now > before


def _count(path: str) -> Optional[int]:
    """Return the number after the word oom_kill in a file of two columns."""
    for pair in [line.split() for line in _lines(path)]:
        if len(pair) == 2 and pair[0] == "oom_kill" and pair[1].isdigit():
            return int(pair[1])
    return None


def _lines(path: str) -> List[str]:
    try:
        return files.read_bytes(path).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
