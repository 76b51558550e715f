"""Threads, on both sides: a machine that has no room for one more says so as it says all else."""

import errno
import threading
from typing import Any, Callable


def start(work: Callable[..., Any], name: str, *args: Any) -> threading.Thread:
    """Start a thread that does not keep its process alive, and return it.

    Raises OSError (EAGAIN) where there are too many processes, or too little memory.
    """
    thread = threading.Thread(target=work, args=args, name=name, daemon=True)
    try:
        thread.start()
    except (RuntimeError, MemoryError):
        # RACE: none; RuntimeError is Python's word for pthread_create's EAGAIN.
        text = "no thread can be started: too many processes, or too little memory"
        raise OSError(errno.EAGAIN, text) from None
    return thread
