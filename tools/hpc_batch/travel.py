"""A travel: how far one long transfer has come, how fast it is, and when it will be there."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Literal

WINDOW_S = 10.0
"""The rate is that of the last so many seconds: a line that stalls is seen to stall."""


class Travel:
    """One long transfer; one thread moves it, others look at it."""

    def __init__(self, way: Literal["in", "out"], what: str, total: int) -> None:
        self.way = way
        """`in`: to the cluster; `out`: back."""
        self.what = what
        """The path of the local file, or whose outputs they are."""
        self.total = total
        """Bytes."""
        self.have = 0
        """Bytes that are there; those that an earlier session has left count too."""
        self._moves: deque[tuple[float, int]] = deque()

    def move(self, count: int) -> None:
        """Count bytes that have travelled."""
        now = time.monotonic()
        self.have += count
        self._moves.append((now, count))
        while self._moves[0][0] < now - WINDOW_S:
            self._moves.popleft()

    def skip(self, count: int) -> None:
        """Count bytes that were there before."""
        self.have += count

    def rate(self) -> float | None:
        """Return bytes a second, lately; None where too little is known."""
        now = time.monotonic()
        moves = [move for move in list(self._moves) if move[0] >= now - WINDOW_S]
        if len(moves) < 2:
            return None
        # The first one's bytes took the time before it.
        return sum(count for _, count in moves[1:]) / max(now - moves[0][0], 1e-3)

    def left_s(self) -> float | None:
        """Return in how many seconds it will be there; None where nobody can say."""
        rate = self.rate()
        return (self.total - self.have) / rate if rate else None

    def document(self) -> dict[str, Any]:
        """Return it as `status.json` shows it."""
        rate, left_s = self.rate(), self.left_s()
        return {
            "way": self.way,
            "what": self.what,
            "bytes": self.have,
            "of": self.total,
            "rate": None if rate is None else int(rate),
            "left_s": None if left_s is None else round(left_s),
        }
