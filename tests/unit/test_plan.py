"""The plan's table: every row is one case."""

from __future__ import annotations

import pytest

from hpc_batch.plan import LOST_CENSUSES, LOST_S, ORDER, Seen, is_lost, next_step


@pytest.mark.parametrize(
    ("seen", "step"),
    [
        (Seen("INTENT"), "accept"),
        (Seen("INTENT", cancel=True), "accept"),
        (Seen("ACCEPTED"), "check"),
        (Seen("ACCEPTED", cancel=True), "withdraw"),
        (Seen("STAGING"), "stage"),
        (Seen("STAGING", cancel=True), "withdraw"),
        (Seen("PUBLISHING"), "publish"),
        (Seen("PUBLISHING", cancel=True), "publish"),
        (Seen("PUBLISHED", ticket="done"), "collect"),
        (Seen("PUBLISHED", ticket="done", cancel=True), "collect"),
        (Seen("PUBLISHED", ticket="ready"), "wait"),
        (Seen("PUBLISHED", ticket="running"), "wait"),
        (Seen("PUBLISHED", ticket="incoming"), "publish"),
        (Seen("PUBLISHED", ticket="ready", cancel=True), "cancel"),
        (Seen("PUBLISHED", ticket="running", cancel=True), "cancel"),
        (Seen("PUBLISHED", ticket="running", cancel=True, told=True), "wait"),
        (Seen("PUBLISHED", ticket=None), "miss"),
        (Seen("PUBLISHED", ticket="ready", missing=3), "miss"),
        (Seen("PUBLISHED", counted=False), "wait"),
        (Seen("PUBLISHED", counted=False, cancel=True), "wait"),
        (Seen("PLACING"), "place"),
        (Seen("PLACING", cancel=True), "place"),
        (Seen("UNPLACING"), "unplace"),
        (Seen("ANSWERING"), "answer"),
        (Seen("CLEANING"), "clean"),
    ],
)
def test_each_state_has_one_next_step(seen: Seen, step: str) -> None:
    assert next_step(seen) == step


def test_every_step_but_waiting_has_a_place_in_the_order() -> None:
    assert {"accept", "check", "withdraw", "stage", "publish", "collect"} <= set(ORDER)
    assert {"cancel", "miss", "place", "unplace", "answer", "clean"} <= set(ORDER)
    assert "wait" not in ORDER


def test_a_job_is_lost_only_after_many_censuses_and_a_long_time() -> None:
    assert not is_lost(LOST_CENSUSES, LOST_S - 1)
    assert not is_lost(LOST_CENSUSES - 1, LOST_S * 2)
    assert is_lost(LOST_CENSUSES, LOST_S)
