"""Threads, on both sides: a machine that has no room for one more says so as it says all else."""

import errno
import threading
from typing import Any, Callable

ROOM_BYTES = 40 << 20
"""There must be so much memory to be had: a stack, and what a thread's first line needs. It is
asked for and given back untouched; of more than 32 MiB malloc keeps nothing."""


def start(work: Callable[..., Any], name: str, *args: Any) -> threading.Thread:
    """Start a thread that does not keep its process alive, and return it.

    Raises OSError (EAGAIN) where there are too many processes, or too little memory.
    """
    thread = threading.Thread(target=work, args=args, name=name, daemon=True)
    try:
        # A thread that ends for want of memory before its first line is waited for without end.
        bytes(ROOM_BYTES)
        thread.start()
    except (RuntimeError, MemoryError):
        # RACE: none; RuntimeError is Python's word for pthread_create's EAGAIN.
        text = "no thread can be started: too many processes, or too little memory"
        raise OSError(errno.EAGAIN, text) from None
    return thread
