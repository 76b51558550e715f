"""The statement: what a runner says of itself, in its pilot's runner.json.

It is rewritten whole whenever something changes; that it cannot be written stops nobody.
"""

import sys
from typing import Any, Callable, Dict

from hpc_cluster import clock, pilot
from hpc_cluster.spool import Spool

SHOWN_S = 1.0
"""What a power cut may forget is written no more often."""


class Statement:
    """The statement of one runner."""

    def __init__(self, spool: Spool, name: str) -> None:
        self._spool, self._name = spool, name
        self._said: Dict[str, Any] = {}
        self._shown_at = float("-inf")
        self._is_news = False

    def __getitem__(self, key: str) -> Any:
        """Return what was said last."""
        return self._said[key]

    def say(self, **changes: Any) -> None:
        """Say something durably: others act on it."""
        self._said.update(changes)
        self._write(pilot.tell)

    def show(self, **changes: Any) -> None:
        """Say something that a power cut may forget; news are written at once, or where others were
        just written with the call that comes SHOWN_S after them."""
        self._is_news = self._is_news or any(self._said.get(k) != v for k, v in changes.items())
        self._said.update(changes)
        if self._is_news and clock.monotonic() >= self._shown_at + SHOWN_S:
            self._shown_at = clock.monotonic()
            self._write(pilot.show)

    def _write(self, how: Callable[[Spool, str, Dict[str, Any]], None]) -> None:
        self._is_news = False
        try:
            how(self._spool, self._name, self._said)
        except OSError as error:
            log(f"cannot write runner.json: {error.strerror}")


def log(line: str) -> None:
    """Print one line about one transition; a full disk must not stop the pilot."""
    try:
        sys.stdout.write(f"{clock.iso()} {line}\n")
        sys.stdout.flush()
    except OSError:
        return
