"""Whether a time limit fits a pilot, and what jobs wait for."""

from __future__ import annotations

from typing import Any

import pytest

from hpc_batch.fitting import misfit, need_s, span
from hpc_batch.waiting import Wait, wait_of


def test_a_time_limit_that_fits_no_pilot_is_told_with_the_way_out() -> None:
    assert misfit(need_s(28760), 28800) is None
    words = misfit(need_s(28761), 28800)
    assert words is not None
    assert "7h59m21s" in words and "[hpc] walltime is 8h." in words and "to 7h59m20s" in words


def test_a_job_without_a_time_limit_fits_any_pilot() -> None:
    assert misfit(need_s(None), 60) is None


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (90, "1m30s"), (3600, "1h"), (5, "5s")])
def test_durations_are_written_as_in_the_configuration(seconds: int, text: str) -> None:
    assert span(seconds) == text


RUNNING = {"pilot": "p", "state": "running", "node": "n7", "started": "then", "native_id": "12"}
QUEUED = {"pilot": "p", "state": "queued", "since": "noon", "reason": "Priority", "native_id": "9"}
STUCK = {**QUEUED, "reason": "PartitionTimeLimit", "native_id": "8"}
WORDS = (
    "a pilot: 8 is queued since noon (PartitionTimeLimit); "
    "it asks for more time than the partition gives: look at [hpc] walltime"
)
TROUBLE = {"what": "submit", "message": "Invalid account", "since": "noon", "next": "one"}


@pytest.mark.parametrize(
    ("pilots", "trouble", "paused", "wait"),
    [
        ([RUNNING, QUEUED], TROUBLE, False, Wait("its turn: a pilot is at work on n7")),
        ([QUEUED], TROUBLE, False, Wait("a pilot: 9 is queued since noon (Priority)")),
        ([STUCK], TROUBLE, False, Wait(WORDS, held=True, obstacle=True)),
        ([STUCK, QUEUED], None, False, Wait("a pilot: 9 is queued since noon (Priority)")),
        ([], TROUBLE, False, Wait("a pilot: Invalid account; the next try is at one", held=True)),
        ([{**RUNNING, "closed": "now"}], None, False, Wait("a pilot")),
        ([], None, True, Wait("a pilot: the service is paused")),
    ],
)
def test_what_a_ready_job_waits_for(
    pilots: list[dict[str, Any]], trouble: dict[str, Any] | None, paused: bool, wait: Wait
) -> None:
    assert wait_of(pilots, trouble, paused=paused) == wait
