"""Portions: how many jobs a step takes at once, so that passes that are killed come to an end, too.

A step moves all its jobs as one batch, because then neither exchanges with the cluster nor syncs
grow with their number. But what a batch has done counts only at its end: where every pass is killed
sooner, nothing would ever move. So it is noted, before a batch is begun, that the next pass shall
take a part of it only; the note is taken back when the batch came to its end. What is killed again
and again so becomes small enough to get done, and grows again as soon as nothing disturbs it.

The note is not durable: what a power cut takes away with it is written at the next kill.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from hpc_batch.state import State
from hpc_cluster import files

MOST = 1000
"""No step takes more at once: what is done then is durable, and costs little beside the jobs."""

FEW = 8
"""No portion is smaller."""

PART = 4
"""After a kill a step takes so many times fewer, and so many times more when all went well."""

NAME = "portions.json"

Item = TypeVar("Item")


class Portions:
    """The portions of one state folder, in one pass."""

    def __init__(self, state: State, is_cut: Callable[[], bool]) -> None:
        """`is_cut` tells that the cluster went away: then nobody knows how far a step came."""
        self._state, self._is_cut = state, is_cut
        kept = state.read(NAME)
        self._most: dict[str, int] = {
            str(step): count
            for step, count in (kept if isinstance(kept, dict) else {}).items()
            if isinstance(count, int) and FEW <= count < MOST
        }

    def of(self, step: str, items: Sequence[Item]) -> Iterator[Sequence[Item]]:
        """Yield items in portions; who asks for the next one has done the one before."""
        begin = 0
        while begin < len(items):
            portion = items[begin : begin + self._most.get(step, MOST)]
            begin += len(portion)
            if len(portion) > FEW:
                self._note(step, len(portion) // PART)
            yield portion
            if not self._is_cut():
                self._note(step, len(portion) * PART if begin < len(items) else MOST)

    def _note(self, step: str, count: int) -> None:
        """Note how many a step may take; MOST is not noted."""
        before = dict(self._most)
        self._most.pop(step, None)
        if count < MOST:
            self._most[step] = max(FEW, count)
        if self._most == before:
            return
        with contextlib.suppress(OSError):
            # RACE: none; where it cannot be written, the step takes as many as before.
            if self._most:
                self._state.show(NAME, self._most)
            else:
                files.unlink(str(self._state.path(NAME)))
