"""The bell: signals, ended jobs and threads wake the runner's loop through it.

A signal's number is kept until the loop asks for it; the system writes a byte into a pipe for each,
and threads write one themselves. Sleeping is waiting for a byte.
"""

import os
import select
import signal
from types import FrameType
from typing import Iterator, List, Optional, Sequence


class Bell:
    """The bell of this process; there is one."""

    def __init__(self, signals: Sequence[int]) -> None:
        """Hear these signals, and the end of children, from now on."""
        self._heard: List[int] = []
        self._read, self._write = os.pipe()

        def note(number: int, frame: Optional[FrameType]) -> None:
            self._heard.append(number)

        for end in (self._read, self._write):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._write)
        for number in (*signals, signal.SIGCHLD):
            signal.signal(number, note)

    def ring(self) -> None:
        """Wake the loop, from a thread."""
        try:
            os.write(self._write, b"w")
        except BlockingIOError:
            return  # it is full of reasons to wake already

    def sleep(self, seconds: float) -> None:
        """Wait for the next reason to wake, for at most so long."""
        if select.select([self._read], [], [], seconds)[0]:
            os.read(self._read, 1 << 12)

    def signals(self) -> Iterator[int]:
        """Yield the signals that came, each once."""
        while self._heard:
            yield self._heard.pop(0)
