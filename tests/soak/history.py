"""The history of a soak: one line of JSON for each thing that somebody did or saw.

Users, the cron of each service host and the nemesis append to the same file; the jobs append to a
journal of their own, `start J N P` and `end J N P`, from wherever they run. An event that another
may depend on is written before it is done, so that no kill leaves one unwritten.

    dropping   word name kind outputs …       a user is about to put NAME.job into the dropbox
    withdrawn  word                           …and could not
    cancel     word                           asks for its end
    answer     word path id status reason …   an answer was seen for the first time, and its outputs
    pass       host code stderr               a pass ended
    kill       what …                         the nemesis is about to send SIGKILL
    stop       what seconds …                 …SIGSTOP, and SIGCONT after so long
    call       armed before                   …a system call that goes wrong, and which did before
    fill       folder seconds                 …a full disk
    pilots     alive                          so many were seen alive that nobody had stopped
    quiet                                     all is answered and nothing is in flight
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

Event = dict[str, Any]


class History:
    """Appends events; threads may share it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._lock = threading.Lock()

    def note(self, event: str, **facts: Any) -> None:
        """Append one event with the time of this machine's monotonic clock."""
        entry = {"at": round(time.monotonic(), 3), "event": event, **facts}
        with self._lock:
            os.write(self._file.fileno(), json.dumps(entry).encode() + b"\n")

    def close(self) -> None:
        """Write no more."""
        self._file.close()


def read(path: Path) -> list[Event]:
    """Return the events in their order."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]
