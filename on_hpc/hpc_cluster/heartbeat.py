"""The heartbeat: a live runner's regular write, in a thread of its own.

Observers only compare its content with what they read before (`pilot.observe`). A runner that
cannot write it for half the lease must assume that others will soon take it for dead: then it is
`stale`, and the guard, which is told of every try, kills the jobs even when the runner hangs in the
file system.
"""

import threading
from typing import Optional

from hpc_cluster import clock, files, pilot
from hpc_cluster.guard import Guard

STALE_BEATS = pilot.LEASE_S / pilot.BEAT_S / 2
"""Half the lease, in beats."""


class Heartbeat(threading.Thread):
    """Writes one pilot's heartbeat until it is ended."""

    def __init__(self, path: bytes, name: str, beat_s: float, guard: Guard) -> None:
        super().__init__(daemon=True)
        self._path, self._name, self._beat_s, self._guard = path, name, beat_s, guard
        self._done = threading.Event()
        self._trying: Optional[float] = None
        self._hung = False
        self.problem = ""
        """Why the last write failed."""

    def run(self) -> None:
        """Beat until `end`."""
        counter = 0
        while not self._done.is_set():
            counter += 1
            since = self._trying = self._trying or clock.monotonic()
            self._guard.tell("try")
            try:
                files.overwrite(self._path, pilot.beat(counter, self._name))
                # Jobs are to be killed by now; that a late write succeeded does not undo it.
                self._hung = self._hung or self.stale()
                self._trying = None
                self._guard.tell("ok")
            except OSError as error:
                self.problem = f"{error.strerror} (since {int(clock.monotonic() - since)} s)"
            self._done.wait(self._beat_s)

    def stale(self) -> bool:
        """Tell whether half the lease passed without a heartbeat that could be written."""
        since = self._trying
        late = since is not None and clock.monotonic() - since >= STALE_BEATS * self._beat_s
        return self._hung or late

    def end(self) -> None:
        """Stop beating."""
        self._done.set()
