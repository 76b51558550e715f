"""Slots: who holds them, and how many there may be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpc_cluster import effects, slots
from hpc_cluster.spool import Spool

P, Q, R = "a" * 16, "b" * 16, "c" * 16


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool.make(str(tmp_path / "w"))[0]


def test_a_slot_is_taken_once_and_may_be_taken_when_it_was_freed(spool: Spool) -> None:
    assert slots.take(spool, 1, P) == 0
    assert slots.take(spool, 1, Q) is None
    assert not slots.free(spool, 0, Q)
    assert slots.free(spool, 0, P)
    assert slots.take(spool, 1, Q) == 0
    assert slots.holders(spool) == {0: Q}


def test_slots_that_another_policy_uses_count(spool: Spool) -> None:
    assert [slots.take(spool, 2, name) for name in (P, Q)] == [0, 1]
    slots.free(spool, 0, P)
    assert slots.take(spool, 1, R) is None
    assert slots.take(spool, 2, R) == 0


def test_a_slot_that_another_host_makes_meanwhile_is_not_made_twice(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This host looked before the other one made the slot and took it."""
    mkdir = effects.mkdir

    def late(path: effects.Path) -> None:
        mkdir(path)
        if Q in os.fsdecode(path):
            assert slots.take(spool, 1, P) == 0

    monkeypatch.setattr(effects, "mkdir", late)
    assert slots.take(spool, 1, Q) is None
    assert os.listdir(spool.path("slots", "0")) == [P.encode()]
    assert os.listdir(spool.path("slots")) == [b"0"]
