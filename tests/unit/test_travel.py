"""How far long transfers have come: counted, written down, shown."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import pytest
from operating import Operator
from rich.console import Console
from world import World

from hpc_batch import travel as travelling
from hpc_batch.cli.bar import Bars
from hpc_batch.report import Report
from hpc_batch.state import State, hold
from hpc_batch.travel import Travel
from hpc_cluster import files

MIB = 1 << 20


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still until a test moves it."""
    now = [1000.0]
    monkeypatch.setattr(travelling.time, "monotonic", lambda: now[0])
    return now


def test_the_rate_is_that_of_the_last_seconds(clock: list[float]) -> None:
    travel = Travel("in", "/data/big", 100 * MIB)
    assert (travel.rate(), travel.left_s()) == (None, None)
    travel.skip(40 * MIB)
    for _ in range(11):
        travel.move(MIB)
        clock[0] += 1
    assert travel.have == 51 * MIB
    assert travel.rate() == pytest.approx(MIB, rel=0.15)
    assert travel.left_s() == pytest.approx(49, rel=0.15)
    clock[0] += travelling.WINDOW_S + 1
    assert (travel.rate(), travel.left_s()) == (None, None), "it stalls"


def test_what_is_there_already_counts(clock: list[float]) -> None:
    travel = Travel("out", "outputs of x.job", 10)
    travel.skip(10)
    wanted = {"way": "out", "what": "outputs of x.job", "bytes": 10, "of": 10}
    assert travel.document() == {**wanted, "rate": None, "left_s": None}


@pytest.fixture
def held(tmp_path: Path) -> Any:
    here = World(tmp_path)
    with hold(here.config) as state:
        state.begin()
        yield here, state


def test_the_report_counts_the_store_between_two_sweeps(held: tuple[World, State]) -> None:
    here, state = held
    report = Report(here.config, state)
    assert not report.stored(5 * MIB, 1), "nothing is known of it yet"
    report.counted({"files": 2, "bytes": 10, "in_use": 1}, 3, 100)
    assert not report.stored(80, 100)
    assert report.stored(11, 100)
    report.end(0, [])
    again = Report(here.config, state)
    assert again.store is not None
    kept = {k: again.store[k] for k in ("files", "bytes", "in_use", "limit", "evicted")}
    assert kept == {"files": 2, "bytes": 101, "in_use": 1, "limit": 100, "evicted": 3}
    again.counted({"files": 1, "bytes": 60, "in_use": 1}, 1, 100)
    assert again.store["evicted"] == 4
    assert not again.stored(0, 100)


def test_status_tells_how_far_a_transfer_has_come(held: tuple[World, State]) -> None:
    here, state = held
    report = Report(here.config, state)
    travel = Travel("in", "/data/big", 4 * MIB)
    travel.move(MIB)
    time.sleep(0.01)
    travel.move(MIB)
    assert report.travels([travel])
    report.counted({"files": 2, "bytes": 3 * MIB, "in_use": 1}, 0, 5 * MIB)
    report.write([])
    assert here.status()["transfers"][0]["bytes"] == 2 * MIB
    out = Operator(here)("status").out
    assert "input store 3.0 MiB of 5.0 MiB" in out
    assert "to the cluster: /data/big, 2.0 MiB of 4.0 MiB, " in out and "/s, " in out
    report.travels([])
    report.end(0, [])
    assert here.status()["transfers"] == []


def test_a_pass_that_was_killed_tells_of_no_transfer(held: tuple[World, State]) -> None:
    here, state = held
    report = Report(here.config, state)
    report.travels([Travel("in", "/data/big", 4 * MIB)])
    report.write([])
    path = here.state / "status.json"
    document = {**here.status(), "written": "2026-01-01T00:00:00Z"}
    files.show(str(path), files.to_json(document))
    assert "/data/big" not in Operator(here)("status").out


def test_bars_come_and_go() -> None:
    terminal = io.StringIO()
    bars = Bars(Console(file=terminal, force_terminal=True, width=120))
    bars.show([])
    first, second = Travel("in", "/data/[b]" + "x" * 100, 4 * MIB), Travel("out", "two", 4 * MIB)
    bars.show([first, second])
    first.move(2 * MIB)
    bars.show([first])
    bars.show([])
    bars.show([second])
    bars.close()
    assert "[b]" not in terminal.getvalue(), "the end of a long path is shown"
    assert "→ …xxx" in terminal.getvalue() and "← two" in terminal.getvalue()
    assert "2.1/4.2 MB" in terminal.getvalue()
