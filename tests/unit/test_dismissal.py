"""Pilots that an operator submits or ends by hand, on the cluster's side."""

import os
from pathlib import Path

import pytest
from workshop import SESSION, Workshop, alive, wait_until

from hpc_cluster import dismissal, files, pilot, queuer, slots
from hpc_cluster.errors import UsageError
from hpc_cluster.verbs import Verbs

P, Q = "a" * 16, "b" * 16
FAKEBIN = Path(__file__).parent.parent / "fakebin"


@pytest.fixture
def shop(tmp_path):
    shop = Workshop(tmp_path / "workspace")
    yield shop
    shop.close()


def wishes(shop, **more):
    return {"scheduler": "local", "linger": 0, "python": shop.python, **more}


def verbs(shop):
    return Verbs(shop.spool, SESSION, "0123abcd", lambda seconds: None)


def test_a_pilot_is_submitted_without_work_and_asked_again_it_is_the_same(shop):
    policy = wishes(shop, linger=30)
    first = verbs(shop).do("submit", {"policy": policy, "pilot": P})
    assert (first["pilot"]["pilot"], first["message"]) == (P, None)
    again = verbs(shop).do("submit", {"policy": policy, "pilot": P})
    assert again["pilot"]["native_id"] == first["pilot"]["native_id"]
    assert slots.holders(shop.spool) == {0: P}


def test_more_pilots_than_slots_are_refused_with_who_holds_them(shop):
    queuer.submit(shop.spool, wishes(shop, linger=30), P)
    other = queuer.submit(shop.spool, wishes(shop, linger=30), Q)
    assert other["pilot"] is None
    assert P in other["message"]
    assert not files.exists(shop.spool.pilot_folder(Q))


def test_a_refused_submission_says_why(shop, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{FAKEBIN}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_BATCH", str(tmp_path))
    monkeypatch.setenv("FAKE_SUBMIT", "refuse")
    answer = queuer.submit(shop.spool, wishes(shop, scheduler="slurm"), P)
    assert "Invalid account" in answer["message"]
    assert slots.holders(shop.spool) == {}


def test_a_dismissed_pilot_hands_its_job_back_without_a_crash(shop):
    job = shop.job("#!/bin/sh\necho begun > begun\nsleep 60\n", grace_s=0)
    [name] = shop.keep()["submitted"]
    native_id = pilot.read(shop.spool, name)["native_id"]
    begun = files.join(shop.spool.attempt_folder(job, 1), "work", "begun")
    wait_until(lambda: files.exists(begun))
    assert dismissal.dismiss(shop.spool, [name]) == {name: "asked"}
    wait_until(lambda: not alive(native_id))
    shop.keep(submit=False)
    [ticket] = shop.spool.tickets("ready")
    assert (ticket.job, ticket.starts, ticket.crashes) == (job, 1, 0)
    assert slots.holders(shop.spool) == {}
    assert dismissal.dismiss(shop.spool, [name]) == {name: "gone"}


def test_a_pilot_that_is_killed_while_it_is_dismissed_costs_its_job_no_crash(shop):
    job = shop.job("#!/bin/sh\necho begun > begun\nsleep 60\n")
    [name] = shop.keep()["submitted"]
    begun = files.join(shop.spool.attempt_folder(job, 1), "work", "begun")
    wait_until(lambda: files.exists(begun))
    pilot.write(shop.spool, name, {"dismissed": "2026-11-20T10:00:00Z"}, "dismissed.json")
    assert shop.kill_local_pilot(name)
    report = shop.keep(submit=False)
    assert report["reaped"] == [job]
    [ticket] = shop.spool.tickets("ready")
    assert (ticket.starts, ticket.crashes) == (1, 0)


def test_a_pilot_dismissed_before_it_claimed_anything_is_no_trouble(shop):
    queuer.submit(shop.spool, wishes(shop, linger=60), P)
    wait_until(lambda: pilot.read(shop.spool, P).get("started"))
    native_id = pilot.read(shop.spool, P)["native_id"]
    assert dismissal.dismiss(shop.spool, [P]) == {P: "asked"}
    wait_until(lambda: not alive(native_id))
    assert shop.keep(submit=False)["trouble"] is None
    assert slots.holders(shop.spool) == {}


def test_who_is_not_listed_is_not_ended(shop, tmp_path, monkeypatch):
    """The batch system does not answer: nothing is known, and nothing is done."""
    monkeypatch.setenv("PATH", f"{FAKEBIN}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_BATCH", str(tmp_path / "none"))
    monkeypatch.setenv("FAKE_LIST", "away")
    pilot.make(shop.spool, P, {"slot": 0, "native_id": "1", "batch": "slurm", "submitted": "x"})
    assert dismissal.dismiss(shop.spool, [P, Q]) == {P: "unknown", Q: "gone"}
    assert not pilot.read(shop.spool, P).get("dismissed")


@pytest.mark.parametrize(
    ("verb", "args"),
    [
        ("submit", {}),
        ("submit", {"policy": {}, "pilot": "../x"}),
        ("dismiss", {}),
        ("dismiss", {"pilots": ["../x"]}),
    ],
)
def test_mistyped_requests_are_refused(shop, verb, args):
    with pytest.raises(UsageError):
        verbs(shop).do(verb, args)
