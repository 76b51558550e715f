"""What a pilot concludes from listings, without a job that runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_cluster import files, slots
from hpc_cluster.spool import Spool
from hpc_cluster.tenure import Tenure
from hpc_cluster.ticket import Ticket

JOB = "0123abcd-0199aabbccd-0123456789abcdef"
S, P, Q = "1" * 16, "a" * 16, "b" * 16


class Claimed:
    """As much of an attempt as the listings concern."""

    def __init__(self, ticket: Ticket) -> None:
        self.ticket, self.misses, self.lost = ticket, 0, False

    def lose(self) -> None:
        self.lost = True


class Bench:
    """A pilot that holds a slot and one ticket."""

    def __init__(self, folder: Path) -> None:
        self.spool = Spool.make(str(folder / "w"))[0]
        assert slots.take(self.spool, 1, P) == 0
        self.claimed = Claimed(self.claim(JOB))
        self.tenure = Tenure(self.spool, P, 0)

    def claim(self, job: str) -> Ticket:
        """Publish a job and claim it."""
        self.spool.begin_all([job], S)
        self.spool.publish_all([(job, S)])
        ticket = self.spool.claim(Ticket("ready", job), P)
        assert ticket is not None
        return ticket

    def look(self) -> None:
        """One listing."""
        self.tenure.mind([self.claimed], ())  # type: ignore[list-item]

    def move(self, there: bool) -> None:
        """Take the ticket away, or bring it back."""
        path = self.spool.ticket_path(self.claimed.ticket)
        aside = self.spool.path("running", "aside")
        files.rename(*((aside, path) if there else (path, aside)))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


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
    bench.claim(other)
    bench.look()
    assert [(t.job, t.starts, t.crashes) for t in bench.spool.tickets("ready")] == [(other, 1, 0)]
    assert [t.job for t in bench.spool.tickets("running")] == [JOB]


def test_what_waits_to_be_handed_over_is_not_given_back(bench: Bench) -> None:
    bench.tenure.mind([], [bench.claimed.ticket.name])
    assert [t.job for t in bench.spool.tickets("running")] == [JOB]


def test_a_slot_is_lost_after_three_looks_in_a_row_that_find_another_in_it(bench: Bench) -> None:
    assert not bench.tenure.has_lost_slot()
    slots.free(bench.spool, 0, P)
    assert slots.take(bench.spool, 1, Q) == 0
    assert not bench.tenure.has_slot()
    assert [bench.tenure.has_lost_slot() for _ in range(3)] == [False, False, True]


def test_a_pilot_that_was_started_by_hand_has_no_slot_to_lose(bench: Bench) -> None:
    tenure = Tenure(bench.spool, Q, None)
    assert tenure.has_slot()
    assert not any(tenure.has_lost_slot() for _ in range(4))
