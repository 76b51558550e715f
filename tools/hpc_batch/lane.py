"""The lane: one thread that moves big files over a channel of its own while the pass goes on.

A pass puts pieces of work into the lane, keeps serving everybody else, and finds the results there
later. So a file of a hundred gigabytes delays nobody. Work is done in the order of its size.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from typing import Any

from hpc_batch.data_channel import DataChannel
from hpc_batch.errors import HpcBatchError

Work = Callable[[DataChannel], Any]


class Lane:
    """Pieces of work by name; `open_channel` is called when there is the first one."""

    def __init__(self, open_channel: Callable[[], DataChannel]) -> None:
        self._open_channel = open_channel
        self._waiting: list[tuple[int, str, Work]] = []
        self._names: set[str] = set()
        self._results: dict[str, Any] = {}
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None
        self._broken: Exception | None = None
        self._finished = self._noticed = 0

    def put(self, name: str, size: int, work: Work) -> None:
        """Add a piece of work of so many bytes, unless one of that name is there."""
        with self._change:
            if name in self._names or name in self._results:
                return
            self._names.add(name)
            heapq.heappush(self._waiting, (size, name, work))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lane", daemon=True)
                self._thread.start()

    def __contains__(self, name: str) -> bool:
        """Tell whether a piece of work is waiting or being done."""
        return name in self._names

    def take(self, name: str) -> Any:
        """Return the result of a finished piece of work and forget it; None when there is none."""
        with self._change:
            return self._results.pop(name, None)

    def busy(self) -> bool:
        """Tell whether there is work left. Raises what broke the lane."""
        with self._change:
            if self._broken is not None:
                raise self._broken
            return bool(self._names)

    def wait(self, seconds: float) -> None:
        """Return when a piece of work is finished, or after so many seconds."""
        with self._change:
            if self._names and self._finished == self._noticed:
                self._change.wait(seconds)
            self._noticed = self._finished

    def _run(self) -> None:
        channel: DataChannel | None = None
        while True:
            with self._change:
                if not self._waiting:
                    self._thread = None
                    break
                _, name, work = heapq.heappop(self._waiting)
            try:
                channel = channel or self._open_channel()
                result = work(channel)
            except (HpcBatchError, OSError) as error:
                with self._change:
                    self._broken = error
                    self._names.clear()
                    self._waiting.clear()
                    self._change.notify_all()
                break
            with self._change:
                self._names.discard(name)
                self._results[name] = result
                self._finished += 1
                self._change.notify_all()
        if channel is not None:
            channel.close()
