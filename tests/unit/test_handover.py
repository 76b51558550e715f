"""The handover: what is durable when a ticket is seen in done, and who waits for whom."""

import os
import threading

import pytest
from workshop import Workshop, wait_until

from hpc_cluster import effects, files, handover
from hpc_cluster.handover import FEW, Handover

PILOT = "9" * 16


class Running:
    """An attempt that holds a slot."""

    given = ()


RUNNING = [Running()]


class Written:
    """An attempt whose result is written, as the handover sees it."""

    def __init__(self, shop):
        job = shop.job("#!/bin/sh\n")
        (ticket,) = shop.spool.waiting()
        self.ticket = shop.spool.claim(ticket, PILOT)
        self.kind, self.job = "ok", job
        folder = shop.spool.attempt_folder(job, 1)
        files.make_folder(folder)
        self.files = [files.join(folder, "result.json")]
        self.folders = [shop.spool.job_folder(job), folder]
        files.write_new(self.files[0], b"{}\n")


@pytest.fixture
def shop(tmp_path):
    """A workspace."""
    shop = Workshop(tmp_path / "workspace")
    yield shop
    shop.close()


@pytest.fixture
def over():
    """Set by the handover when a batch is over."""
    return threading.Event()


def through(shop_handover, over):
    """Hand over what waits; return how it went."""
    shop_handover.begin([])
    assert over.wait(60)
    over.clear()
    return shop_handover.ended()


@pytest.fixture
def told(monkeypatch, tmp_path):
    """The effects, in order: ("sync", path or "all") and ("rename", name)."""
    told = []

    def fsync(descriptor):
        told.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))

    def rename(source, target):
        told.append(("rename", os.path.basename(os.fsdecode(source))))
        os.rename(source, target)

    monkeypatch.setattr(effects, "fsync", fsync)
    monkeypatch.setattr(effects, "syncfs", lambda descriptor: told.append(("sync", "all")))
    monkeypatch.setattr(effects, "rename", rename)
    return told


@pytest.mark.parametrize("count", [1, FEW, FEW + 1, 20])
@pytest.mark.parametrize("has_syncfs", [True, False])
def test_all_is_durable_before_the_first_ticket_of_a_batch_moves(
    shop, over, told, monkeypatch, count, has_syncfs
):
    found = has_syncfs and effects.has_syncfs()
    monkeypatch.setattr(effects, "has_syncfs", lambda: found)
    ours = Handover(shop.spool, over.set)
    attempts = [Written(shop) for _ in range(count)]
    for attempt in attempts:
        ours.add(attempt)
    del told[:]
    assert [(one.attempt, one.ours, one.failure) for one in through(ours, over)] == [
        (attempt, True, None) for attempt in attempts
    ]
    first = [kind for kind, _ in told].index("rename")
    synced = {what for _, what in told[:first]}
    if ("sync", "all") not in told:
        assert synced == {os.fsdecode(p) for a in attempts for p in a.files + a.folders}
    last = len(told) - [kind for kind, _ in told][::-1].index("rename")
    done = os.fsdecode(shop.spool.path("done", attempts[0].ticket.instance))
    assert told[last:] == [("sync", done), ("sync", os.fsdecode(shop.spool.path("running")))]
    assert shop.done() == {attempt.job: "ok" for attempt in attempts}
    assert len(ours) == 0


def test_what_a_running_job_was_given_is_durable_before_its_claim_is(shop, over, told):
    ours, running = Handover(shop.spool, over.set), Written(shop)
    running.given = running.files + running.folders
    ours.add(Written(shop))
    del told[:]
    ours.begin([running])
    assert over.wait(60)
    claims = told.index(("sync", os.fsdecode(shop.spool.path("running"))))
    for path in running.files + running.folders:
        assert ("sync", os.fsdecode(path)) in told[:claims]
    assert running.given == []


def test_what_one_left_and_cannot_be_made_durable_holds_up_nobody_else(shop, over):
    ours = Handover(shop.spool, over.set)
    attempts = [Written(shop) for _ in range(FEW)]
    files.unlink(attempts[1].files[0])
    for attempt in attempts:
        ours.add(attempt)
    failed = [one.attempt for one in through(ours, over) if one.failure is not None]
    assert failed == [attempts[1]]
    assert set(shop.done()) == {a.job for a in attempts if a is not attempts[1]}
    assert [t.job for t in shop.spool.tickets("running")] == [attempts[1].job]


def test_a_disk_that_fails_as_a_whole_is_asked_for_each_one(shop, over, monkeypatch):
    def fails(descriptor):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(effects, "syncfs", fails)
    ours = Handover(shop.spool, over.set)
    attempts = [Written(shop) for _ in range(FEW + 1)]
    files.unlink(attempts[0].files[0])
    for attempt in attempts:
        ours.add(attempt)
    went = through(ours, over)
    assert [one.failure is None for one in went] == [False] + [True] * FEW
    assert len(shop.done()) == FEW


def test_a_ticket_that_somebody_else_has_is_lost(shop, over):
    ours = Handover(shop.spool, over.set)
    attempt = Written(shop)
    ours.add(attempt)
    shop.spool.crash(attempt.ticket, 3, 10)
    (one,) = through(ours, over)
    assert not one.ours and one.failure is None
    assert shop.done() == {}


def test_tickets_that_cannot_be_moved_are_tried_again(shop, over, monkeypatch):
    attempt = Written(shop)
    ours = Handover(shop.spool, over.set)
    ours.add(attempt)

    def refuses(source, target):
        raise OSError(122, "Disk quota exceeded")

    with monkeypatch.context() as patched:
        patched.setattr(effects, "rename", refuses)
        with pytest.raises(OSError, match="quota"):
            through(ours, over)
    assert len(ours) == 1
    assert 0 < ours.begin([]) <= handover.AGAIN_S, "not at once: a full disk stays full"
    wait_until(lambda: ours.begin(RUNNING) == float("inf"))
    assert over.wait(60)
    assert [one.ours for one in ours.ended()] == [True]


def test_while_jobs_run_batches_keep_their_distance(shop, over, monkeypatch):
    monkeypatch.setattr(handover, "SPACING_S", 600.0)
    ours = Handover(shop.spool, over.set)
    ours.add(Written(shop))
    assert ours.begin(RUNNING) == float("inf"), "the first does not wait"
    assert over.wait(60)
    assert len(ours.ended()) == 1
    ours.add(Written(shop))
    assert 0 < ours.begin(RUNNING) <= 600.0
    monkeypatch.setattr(handover, "SPACING_S", 0.0)
    assert ours.begin(RUNNING) == float("inf")
    assert over.wait(60)


def test_what_is_given_up_comes_back_and_nothing_begins_any_more(shop, over):
    ours = Handover(shop.spool, over.set)
    attempt = Written(shop)
    ours.add(attempt)
    assert ours.give_up() == [attempt]
    ours.add(Written(shop))
    assert ours.begin([]) == float("inf")
    assert len(ours.give_up()) == 1 and len(ours) == 0


def test_a_thread_that_cannot_be_had_is_asked_for_again(shop, over, monkeypatch):
    ours, attempt = Handover(shop.spool, over.set), Written(shop)
    ours.add(attempt)

    def full(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as machine:
        machine.setattr(threading.Thread, "start", full)
        assert 0 < ours.begin([]) <= handover.AGAIN_S
    assert ours.tickets() == {attempt.ticket.name} and ours.ended() == []
    now = handover.clock.monotonic()
    monkeypatch.setattr(handover.clock, "monotonic", lambda: now + handover.AGAIN_S)
    assert [one.ours for one in through(ours, over)] == [True]
