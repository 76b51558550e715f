"""What a runner concludes from listings, without a job that runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_cluster import clock, files, pilot, slots
from hpc_cluster.handover import Handover
from hpc_cluster.runner import Options, Runner
from hpc_cluster.spool import Spool
from hpc_cluster.ticket import Ticket

JOB = "0123abcd-0199aabbccd-0123456789abcdef"
S, P, Q = "1" * 16, "a" * 16, "b" * 16
BEAT_S = 30.0


class Claimed:
    """As much of an attempt as the listings concern."""

    phase = "collecting"

    def __init__(self, ticket: Ticket) -> None:
        self.ticket, self.misses, self.lost = ticket, 0, False

    def lose(self) -> None:
        self.lost = True


class Bench:
    """A runner that holds a slot and one ticket, and a clock that a test moves."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.spool = Spool.make(str(folder / "w"))[0]
        pilot.make(self.spool, P, {"slot": 0, "batch": "local", "native_id": None})
        assert slots.take(self.spool, 1, P) == 0
        self.spool.begin_all([JOB], S)
        self.spool.publish_all([(JOB, S)])
        ticket = self.spool.claim(Ticket("ready", JOB), P)
        assert ticket is not None
        self.claimed = Claimed(ticket)
        options = Options(
            workspace=self.spool.workspace,
            pilot=P,
            slots=1,
            linger=0.0,
            walltime=None,
            gpuram=None,
            gpu=False,
            successor=False,
            beat=BEAT_S,
        )
        self.runner = Runner(options)
        self.runner.attempts = [self.claimed]  # type: ignore[list-item]
        self.runner._slot = 0
        self.runner.handover = Handover(self.spool, lambda: None)
        self.now = 1000.0
        patch.setattr(clock, "monotonic", lambda: self.now)

    def look(self) -> None:
        """One listing, a heartbeat later."""
        self.now += BEAT_S
        self.runner._mind_the_tickets()

    def move(self, there: bool) -> None:
        """Take the ticket away, or bring it back."""
        path = self.spool.ticket_path(self.claimed.ticket)
        aside = self.spool.path("running", "aside")
        files.rename(*((aside, path) if there else (path, aside)))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_a_job_is_lost_after_three_listings_in_a_row_without_its_ticket(bench: Bench) -> None:
    bench.look()
    bench.move(there=False)
    for _ in range(2):
        bench.look()
    assert not bench.claimed.lost
    bench.move(there=True)
    bench.look()
    bench.move(there=False)
    for _ in range(2):
        bench.look()
    assert not bench.claimed.lost
    bench.look()
    assert bench.claimed.lost


def test_a_claim_that_was_done_and_reported_as_failed_is_given_back(bench: Bench) -> None:
    """Else its job would wait until this pilot is dead, and count a crash then."""
    other = JOB[:-1] + "0"
    bench.spool.begin_all([other], S)
    bench.spool.publish_all([(other, S)])
    assert bench.spool.claim(Ticket("ready", other), P) is not None
    bench.look()
    assert [(t.job, t.starts, t.crashes) for t in bench.spool.tickets("ready")] == [(other, 1, 0)]
    assert [t.job for t in bench.spool.tickets("running")] == [JOB]


def test_what_waits_to_be_handed_over_is_not_given_back(bench: Bench) -> None:
    bench.runner.attempts = []
    bench.runner.handover.add(bench.claimed)  # type: ignore[arg-type]
    bench.look()
    assert [t.job for t in bench.spool.tickets("running")] == [JOB]


def test_several_looks_within_a_heartbeat_are_one(bench: Bench) -> None:
    bench.look()
    bench.move(there=False)
    bench.look()
    for _ in range(10):
        bench.runner._mind_the_tickets()
    assert bench.claimed.misses == 1


def test_a_pilot_whose_slot_was_given_away_claims_nothing_more(bench: Bench) -> None:
    bench.look()
    slots.free(bench.spool, 0, P)
    assert slots.take(bench.spool, 1, Q) == 0
    for _ in range(2):
        bench.look()
    assert not bench.runner.stopping
    bench.look()
    assert bench.runner.stopping == "its slot was given to another pilot"
    assert not bench.claimed.lost


def test_a_pilot_that_says_it_closes_looks_once_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who published before it said so has counted on it, and submitted no other."""
    runner, late = bench.runner, "0123abcd-0199aabbccd-ffffffffffffffff"
    bench.spool.finish(bench.claimed.ticket, "ok")
    runner.attempts = []
    said: list[object] = []
    real = runner._statement.say

    def say(**words: object) -> None:
        if not said:
            bench.spool.begin_all([late], S)
            bench.spool.publish_all([(late, S)])
        said.append(words["closing"])
        real(**words)

    monkeypatch.setattr(runner._statement, "say", say)
    assert not runner._is_over()
    assert len(said) == 2 and said[0] is not None and said[1] is None
    files.unlink(bench.spool.ticket_path(Ticket("ready", late)))
    assert runner._is_over()
    assert pilot.read(bench.spool, P)["closing"] == said[2]
