"""What a pass tells of the pilots, by what the cluster says of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from world import World

from hpc_batch.records import Records
from hpc_batch.report import Report
from hpc_batch.state import hold
from hpc_batch.tidings import Pilots, pilots
from hpc_batch.trouble import Ledger
from hpc_batch.upkeep import SILENT_S, Upkeep

SILENT = "squeue did not answer in time"


class Passes:
    """The upkeep of passes, each with a ledger that reads what the last one kept."""

    def __init__(self, here: World) -> None:
        self._here = here

    def told(self, silent: str | None, *, later_s: float = 0) -> list[str]:
        """Have a pass hear of no pilots; return what it prints."""
        with hold(self._here.config) as state:
            kept = state.read("trouble.json") or {}
            for entry in kept.values():
                entry["at"] -= later_s
            state.show("trouble.json", kept)
            ledger, records = Ledger(state), Records(state.path("journal"))
            report = Report(self._here.config, state)
            upkeep = Upkeep(self._here.config, state, records, report, ledger)
            upkeep._take_in(Pilots((), (), (), None, silent))
            ledger.save()
            return ledger.messages


@pytest.fixture
def passes(tmp_path: Path) -> Iterator[Passes]:
    here = World(tmp_path)
    here.sweep()
    yield Passes(here)


def test_a_batch_system_that_stays_silent_is_told_once_and_its_end_too(passes: Passes) -> None:
    assert passes.told(SILENT) == []
    (message,) = passes.told(SILENT, later_s=SILENT_S + 1)
    assert SILENT in message
    assert passes.told(SILENT) == []
    (over,) = passes.told(None)
    assert over.startswith("over, since ")


def test_a_silence_that_soon_ends_is_told_to_nobody(passes: Passes) -> None:
    assert passes.told(SILENT) == []
    assert passes.told(None, later_s=SILENT_S / 2) == []


def test_a_cluster_of_the_release_before_says_nothing_of_silence() -> None:
    assert pilots({"pilots": [], "submitted": [], "reaped": [], "trouble": None}).silent is None
