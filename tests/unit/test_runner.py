"""What a runner does at which moment, without a job that runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpc_cluster import clock, effects, files, pilot
from hpc_cluster.command_line import Options
from hpc_cluster.handover import Handover
from hpc_cluster.runner import Runner
from hpc_cluster.spool import Spool
from hpc_cluster.tenure import Tenure
from hpc_cluster.ticket import Ticket

JOB = "0123abcd-0199aabbccd-0123456789abcdef"
S, P = "1" * 16, "a" * 16
BEAT_S = 30.0


class Claimed:
    """As much of an attempt as the listings concern."""

    phase, misses = "collecting", 0

    def __init__(self, ticket: Ticket) -> None:
        self.ticket = ticket


class Bench:
    """A runner that holds one ticket, and a clock that a test moves."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.spool = Spool.make(str(folder / "w"))[0]
        pilot.make(self.spool, P, {"slot": None, "batch": "local", "native_id": None})
        self.publish(JOB)
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
        self.runner.handover = Handover(self.spool, lambda: None)
        self.runner._tenure = Tenure(self.spool, P, None)
        self.now = 1000.0
        patch.setattr(clock, "monotonic", lambda: self.now)

    def publish(self, job: str) -> None:
        self.spool.begin_all([job], S)
        self.spool.publish_all([(job, S)])


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_several_looks_within_a_heartbeat_are_one(bench: Bench) -> None:
    files.unlink(bench.spool.ticket_path(bench.claimed.ticket))
    for _ in range(10):
        bench.runner._mind_the_tickets()
    assert bench.claimed.misses == 1
    bench.now += BEAT_S
    bench.runner._mind_the_tickets()
    assert bench.claimed.misses == 2


def test_a_pilot_that_says_it_closes_looks_once_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who published before it said so has counted on it, and submitted no other."""
    runner, late = bench.runner, "0123abcd-0199aabbccd-ffffffffffffffff"
    bench.spool.finish(bench.claimed.ticket, "ok")
    runner.attempts = []
    said: list[Any] = []
    rename = effects.rename

    def saying(source: effects.Path, target: effects.Path) -> None:
        rename(source, target)
        if files.join(target).endswith(b"/runner.json"):
            said.append(pilot.read(bench.spool, P)["closing"])
            if len(said) == 1:
                bench.publish(late)

    monkeypatch.setattr(effects, "rename", saying)
    assert not runner._is_over()
    assert len(said) == 2 and said[0] is not None and said[1] is None
    files.unlink(bench.spool.ticket_path(Ticket("ready", late)))
    assert runner._is_over()
    assert said[2] is not None and pilot.read(bench.spool, P)["closing"] == said[2]
