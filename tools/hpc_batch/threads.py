"""Threads of a pass: each serves the connection to the cluster, which is lost without it.

One that ends for want of memory may leave behind what others wait for, without end. So it ends the
pass with it, as a kill does, which may come at any moment.
"""

from __future__ import annotations

import os
import threading
from typing import Any, Callable

from hpc_batch.errors import RemoteError
from hpc_cluster import threads

EXIT_CODE = 75
"""Tried again by the next pass."""


def start(work: Callable[..., Any], name: str, *args: Any) -> threading.Thread:
    """Start a thread that does not keep its process alive, and return it.

    Raises RemoteError where there are too many processes, or too little memory.
    """
    try:
        return threads.start(_done, name, work, *args)
    except OSError as error:
        raise RemoteError(f"{error.strerror} on this machine") from None


def _done(work: Callable[..., Any], *args: Any) -> None:
    try:
        work(*args)
    except MemoryError:
        os._exit(EXIT_CODE)
