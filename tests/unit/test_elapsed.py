"""The time that passes have seen go by: no clock that is set changes it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from hpc_batch.elapsed import GAP_S, Elapsed
from hpc_cluster import clock


def kept(**changes: Any) -> dict[str, Any]:
    return {**Elapsed(1000.0).kept(), **changes}


def of_another_boot(unix_ago_s: float) -> dict[str, Any]:
    return kept(boot="another", monotonic=1e12, unix=time.time() - unix_ago_s)


@pytest.mark.parametrize("wrong_s", [0, -400 * 86400, 400 * 86400])
def test_within_a_boot_the_clock_of_the_host_says_nothing(wrong_s: float) -> None:
    before = kept(monotonic=clock.monotonic() - 60, unix=time.time() - wrong_s)
    assert Elapsed.since(before).seconds() == pytest.approx(1060, abs=30)


@pytest.mark.parametrize(
    ("ago_s", "counted_s"), [(60, 60), (-86400, 0), (400 * 86400, GAP_S), (GAP_S, GAP_S)]
)
def test_over_a_boot_it_counts_what_the_clock_says_but_no_leap(ago_s: int, counted_s: int) -> None:
    found = Elapsed.since(of_another_boot(ago_s)).seconds() - 1000
    assert found == pytest.approx(counted_s, abs=30)


def test_a_long_time_without_passes_counts_as_one_gap() -> None:
    assert Elapsed.since(kept(monotonic=clock.monotonic() - 1e6)).seconds() == pytest.approx(
        1000 + GAP_S, abs=30
    )


@pytest.mark.parametrize("damaged", [None, [], {}, {"seconds": "x", "boot": 3, "monotonic": None}])
def test_it_begins_anew_where_nothing_is_kept(damaged: Any) -> None:
    assert Elapsed.since(damaged).seconds() < 30


def test_ages_are_differences_of_the_count() -> None:
    now = Elapsed(500.0)
    assert now.age_s(100.0) == pytest.approx(400, abs=30)
    assert now.age_s(1e9) == 0
    assert now.age_s(None) == 0
