"""What a benchmark returns, how contenders take turns, and the table that comes of it.

A module of this folder with a `TITLE` and a function `rows` is a benchmark:

    TITLE = "A pass over SSH, 30 ms round trip"

    def rows(quick: bool) -> list[Row]:
        times = alternate({"ours": our_pass, "rsync": their_copy}, rounds(quick))
        return [ratio("stage 100 jobs", "rsync", times["ours"], times["rsync"], at_most=1.5)]

Each row is a comparison inside one run: the contenders take turns, so that whatever else the
machine does hits all of them alike, and medians are told. `quick` asks for fewer rounds and smaller
sizes. What the machine lacks is raised as Missing and told in the table.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

Contender = Callable[[], Optional[float]]
"""Does the thing once; returns its own figure, or None to be timed from outside (seconds)."""


class Missing(Exception):
    """The machine cannot run this benchmark; the message says what it lacks."""


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    what: str
    """The thing measured, with its size."""
    against: str
    """What it is measured against; empty for an absolute figure."""
    ours: str
    """Our median with its unit."""
    theirs: str
    """The other's median with its unit; empty for an absolute figure."""
    figure: float
    """What is judged: the ratio, or the absolute figure."""
    unit: str = "×"
    """Of `figure`."""
    at_most: float | None = None
    at_least: float | None = None
    note: str = ""

    @property
    def goal(self) -> str:
        """Return the goal in words."""
        if self.at_most is not None:
            return f"≤ {self.at_most:g} {self.unit}"
        if self.at_least is not None:
            return f"≥ {self.at_least:g} {self.unit}"
        return ""

    @property
    def met(self) -> bool:
        """Tell whether the goal is met; a row without one always is."""
        under = self.at_most is None or self.figure <= self.at_most
        return under and (self.at_least is None or self.figure >= self.at_least)


def ratio(
    what: str,
    against: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    unit: str = "s",
    at_most: float | None = None,
    at_least: float | None = None,
    note: str = "",
) -> Row:
    """Return the row that compares the medians of two contenders of one run."""
    mine, other = statistics.median(ours), statistics.median(theirs)
    return Row(
        what,
        against,
        _told(ours, unit),
        _told(theirs, unit),
        mine / other if other else float("inf"),
        at_most=at_most,
        at_least=at_least,
        note=note,
    )


def absolute(
    what: str,
    values: Sequence[float],
    unit: str,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
    note: str = "",
) -> Row:
    """Return the row of a figure that stands by itself."""
    median = statistics.median(values)
    told = _told(values, unit)
    return Row(what, "", told, "", median, unit, at_most=at_most, at_least=at_least, note=note)


def rounds(quick: bool, full: int = 7) -> int:
    """Return how often contenders take turns."""
    return 3 if quick else full


def alternate(contenders: Mapping[str, Contender], times: int) -> dict[str, list[float]]:
    """Let contenders take turns, the order reversed each round; return each one's figures."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for _ in range(times):
        for name in names:
            begin = time.perf_counter()
            figure = contenders[name]()
            elapsed = time.perf_counter() - begin
            found[name].append(elapsed if figure is None else figure)
        names.reverse()
    return found


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Give a fresh folder on a real disk: HPC_BATCH_BENCH, else /var/tmp.

    It is asked to put each folder in here in another part of the disk, for `fresh`.
    """
    base = os.environ.get("HPC_BATCH_BENCH", "/var/tmp")
    folder = Path(tempfile.mkdtemp(prefix="hpc_batch-bench-", dir=base))
    subprocess.run(["chattr", "+T", folder], check=False, capture_output=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


PLACES, PROBES = 6, 200
"""So many places are tried, with so many files in each."""


def fresh(folder: Path) -> Path:
    """Make a folder where making files costs what it costs on a disk where nothing was deleted.

    An ext4 without a journal, such as the benchmark's own disk, looks at every inode that was
    deleted near there in the last minutes whenever it makes a file; by whom they were deleted does
    not matter. One round in three took twice as long by that. So several places are tried, and the
    one is taken where some files were made fastest. What was made stays, for the same reason.
    """
    places: list[tuple[float, Path]] = []
    for number in range(PLACES):
        place = folder.with_name(f"{folder.name}.{number}")
        probe = place / "probe"
        probe.mkdir(parents=True)
        begin = time.perf_counter()
        for name in range(PROBES):
            (probe / str(name)).touch()
        places.append((time.perf_counter() - begin, place))
    return min(places)[1]


def markdown(rows: Sequence[Row]) -> str:
    """Return rows as a Markdown table."""
    lines = [
        "| what | against | ours | theirs | figure | goal | |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        met = ("yes" if row.met else "**no**") if row.goal else ""
        cells = [row.what, row.against, row.ours, row.theirs, _figure(row), row.goal, met]
        lines.append(f"| {' | '.join(cells)} |")
    notes = [f"{row.what}: {row.note}." for row in rows if row.note]
    return "\n".join([*lines, *(["", *notes] if notes else []), ""])


def _figure(row: Row) -> str:
    return f"{row.figure:.3g} {row.unit}"


def _told(values: Sequence[float], unit: str) -> str:
    """Return a median, and how far the values lie apart."""
    median = statistics.median(values)
    if len(values) < 2:
        return f"{median:.3g} {unit}"
    return f"{median:.3g} {unit} ({min(values):.3g} to {max(values):.3g})"
