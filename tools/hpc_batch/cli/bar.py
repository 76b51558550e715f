"""A progress bar for each long transfer, on the terminal of whoever runs a pass by hand."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from hpc_batch.cli.output import escape
from hpc_batch.travel import Travel

WIDTH = 40
"""Of a transfer's name; the end of a path tells more than its beginning."""


class Bars:
    """The bars; drawn while something travels, and gone when nothing does."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._progress: Progress | None = None
        self._tasks: dict[int, tuple[Travel, TaskID]] = {}

    def show(self, travels: Sequence[Travel]) -> None:
        """Draw what travels now."""
        known = {id(travel) for travel in travels}
        for key in [key for key in self._tasks if key not in known]:
            _, task = self._tasks.pop(key)
            if self._progress is not None:
                self._progress.remove_task(task)
        if not travels:
            self.close()
            return
        if self._progress is None:
            self._progress = _progress(self._console)
            self._progress.start()
        for travel in travels:
            if id(travel) not in self._tasks:
                name = _name(travel)
                task = self._progress.add_task(name, total=travel.total, completed=travel.have)
                self._tasks[id(travel)] = (travel, task)
            task = self._tasks[id(travel)][1]
            self._progress.update(task, completed=travel.have, refresh=True)

    def close(self) -> None:
        """Draw no more."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
            self._tasks = {}


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def _name(travel: Travel) -> str:
    text = escape(travel.what)
    short = text if len(text) <= WIDTH else f"…{text[1 - WIDTH :]}"
    return f"{'→' if travel.way == 'in' else '←'} {short}"
