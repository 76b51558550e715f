"""Threads of a pass: each serves the connection to the cluster, which is lost without it."""

from __future__ import annotations

import threading
from typing import Any, Callable

from hpc_batch.errors import RemoteError
from hpc_cluster import threads


def start(work: Callable[..., Any], name: str, *args: Any) -> threading.Thread:
    """Start a thread that does not keep its process alive, and return it.

    Raises RemoteError where there are too many processes, or too little memory.
    """
    try:
        return threads.start(work, name, *args)
    except OSError as error:
        raise RemoteError(f"{error.strerror} on this machine") from None
