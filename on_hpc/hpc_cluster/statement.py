"""The statement: what a runner says of itself, in its pilot's runner.json.

It is rewritten whole whenever something changes; that it cannot be written stops nobody.
"""

from typing import Any, Callable, Dict

from hpc_cluster import clock, pilot
from hpc_cluster.spool import Spool


class Statement:
    """The statement of one runner."""

    def __init__(self, spool: Spool, name: str) -> None:
        self._spool, self._name = spool, name
        self._said: Dict[str, Any] = {}

    def __getitem__(self, key: str) -> Any:
        """Return what was said last."""
        return self._said[key]

    def say(self, **changes: Any) -> None:
        """Say something durably: others act on it."""
        self._said.update(changes)
        self._write(pilot.tell)

    def show(self, **changes: Any) -> None:
        """Say something, where it is news, that a power cut may forget."""
        news = {key: value for key, value in changes.items() if self._said.get(key) != value}
        if news:
            self._said.update(news)
            self._write(pilot.show)

    def _write(self, how: Callable[[Spool, str, Dict[str, Any]], None]) -> None:
        try:
            how(self._spool, self._name, self._said)
        except OSError as error:
            log(f"cannot write runner.json: {error.strerror}")


def log(line: str) -> None:
    """Print one line about one transition; a full disk must not stop the pilot."""
    try:
        print(clock.iso(), line, flush=True)
    except OSError:
        return
