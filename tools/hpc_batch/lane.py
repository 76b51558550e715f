"""The lane: one thread that moves big files over a channel of its own while the pass goes on.

A pass puts pieces of work into the lane, keeps serving everybody else, and finds the results there
later. So a file of a hundred gigabytes delays nobody. Work is done in the order of its size.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from typing import Any

from hpc_batch import threads
from hpc_batch.data_channel import DataChannel
from hpc_batch.errors import HpcBatchError
from hpc_batch.travel import Travel

Work = Callable[[DataChannel, Travel], Any]


class Lane:
    """Pieces of work by name; `open_channel` is called when there is the first one, and `ring`
    whenever one is finished, or all have failed."""

    def __init__(self, open_channel: Callable[[], DataChannel], ring: Callable[[], None]) -> None:
        self._open_channel, self._ring = open_channel, ring
        self._waiting: list[tuple[int, str, Work]] = []
        self._travels: dict[str, Travel] = {}
        self._names: set[str] = set()
        self._results: dict[str, Any] = {}
        self._change = threading.Lock()
        self._thread: threading.Thread | None = None
        self._broken: Exception | None = None

    def put(self, name: str, travel: Travel, work: Work) -> None:
        """Add a piece of work, which moves `travel`, unless one of that name is there."""
        with self._change:
            if name in self._names or name in self._results:
                return
            self._names.add(name)
            self._travels[name] = travel
            heapq.heappush(self._waiting, (travel.total, name, work))
            if self._thread is None:
                self._thread = threads.start(self._run, "lane")

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

    def travels(self) -> list[Travel]:
        """Return what is waiting or travelling, the next one to arrive first."""
        with self._change:
            return sorted(self._travels.values(), key=lambda travel: travel.total)

    def _run(self) -> None:
        channel: DataChannel | None = None
        while True:
            with self._change:
                if not self._waiting:
                    self._thread = None
                    break
                _, name, work = heapq.heappop(self._waiting)
                travel = self._travels[name]
            try:
                channel = channel or self._open_channel()
                result = work(channel, travel)
            except (HpcBatchError, OSError) as error:
                with self._change:
                    self._broken = error
                    self._names.clear()
                    self._waiting.clear()
                    self._travels.clear()
                self._ring()
                break
            with self._change:
                self._names.discard(name)
                del self._travels[name]
                self._results[name] = result
            self._ring()
        if channel is not None:
            channel.close()
