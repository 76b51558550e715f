"""A pass that kills itself at its N-th effect: KILL_AT=N KILL_WHEN=before|after killed_pass.py INI.

Every call of the operating system that changes something counts, in this process; without KILL_AT
the number of effects is printed at the end.
"""

import os
import signal
import sys

EFFECTS = "rename link unlink fsync mkdir rmdir ftruncate write pwrite utime posix_fallocate"
AT, WHEN = int(os.environ.get("KILL_AT", "0")), os.environ.get("KILL_WHEN", "before")
CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
count = 0


def counted(function):
    """Return an effect that counts, and kills where its number has come."""

    def effect(*args, **kwargs):
        global count
        count += 1
        mine = count == AT
        if mine and WHEN == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return function(*args, **kwargs)
        finally:
            if mine:
                os.kill(os.getpid(), signal.SIGKILL)

    return effect


for name in EFFECTS.split():
    setattr(os, name, counted(getattr(os, name)))
sys.path[:0] = [os.path.join(CHECKOUT, "tools"), os.path.join(CHECKOUT, "on_hpc")]

from hpc_batch.cli import hpc_submitter  # noqa: E402

code = hpc_submitter()
if not AT:
    print(count)
sys.exit(code)
