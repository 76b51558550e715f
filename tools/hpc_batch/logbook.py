"""The logbook: one line per transition in `state/log`, and with --debug on stderr.

A line that cannot be written (the disk is full) is forgotten: what a pass does never depends on it,
and an error of logging itself would be mailed by cron.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator

from hpc_batch.state import State
from hpc_cluster import files

log = logging.getLogger("hpc_batch")

LOG_BYTES = 10 << 20
"""A log longer than this becomes `log.1`."""


class Lines(tuple[str, ...]):
    """What a step tells of each of its jobs."""

    def __str__(self) -> str:
        return "\n".join(self)


class Line(logging.Formatter):
    """Each line with its time."""

    def format(self, record: logging.LogRecord) -> str:
        if not isinstance(record.msg, Lines):
            return super().format(record)
        beginning = f"{self.formatTime(record, self.datefmt)} {record.levelname} "
        return "\n".join([beginning + line for line in record.msg])


LINE = Line("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z")


class Pages(logging.Handler):
    """Appends to a file; each record by one write."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._descriptor = files.open_append(path)

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record) + "\n"
        # Names may be any bytes.
        with contextlib.suppress(OSError):
            files.write_all(self._descriptor, text.encode("utf-8", "backslashreplace"))

    def close(self) -> None:
        super().close()
        with contextlib.suppress(OSError):
            files.close(self._descriptor)


def tell(lines: Iterable[str]) -> None:
    """Tell of a batch of jobs, a line for each, by one write: when a step ends it is all there."""
    told = Lines(lines)
    if told:
        log.info(told)


@contextlib.contextmanager
def keep(state: State, *, debug: bool) -> Iterator[None]:
    """Keep the logbook of one pass."""
    path = state.path("log")
    handlers: list[logging.Handler] = []
    with contextlib.suppress(OSError):
        if path.exists() and path.stat().st_size > LOG_BYTES:
            files.rename(str(path), str(state.path("log.1")))
        handlers.append(Pages(str(path)))
    if debug:
        handlers.append(logging.StreamHandler())
    log.setLevel(logging.DEBUG if debug else logging.INFO)
    for handler in handlers:
        handler.setFormatter(LINE)
        log.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()
