"""Which jobs the cluster is told to leave alone when it is swept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from world import World

from hpc_batch import journal, tidying
from hpc_batch.journal import Step
from hpc_batch.record import Record
from hpc_batch.records import Records
from hpc_batch.report import Report
from hpc_batch.session import Swept
from hpc_batch.state import hold
from hpc_batch.trouble import Ledger
from hpc_batch.upkeep import Upkeep

INSTANCE = "0123abcd"


def job(number: int) -> str:
    return f"{INSTANCE}-0199aabbccd-{number:016x}"


class Cluster:
    """A session, or a connection, that only notes what it is asked for."""

    def __init__(self) -> None:
        self.known: list[list[str]] = []
        self.session = self.staging = self

    def take_stored(self) -> int:
        return 0

    def begin_sweep(self, known: Sequence[str], limit: int | None) -> None:
        self.known.append(list(known))

    def sweep(self, known: Sequence[str], *args: Any) -> Swept:
        self.known.append(list(known))
        return Swept((), (), (), (), 0, 0)


@pytest.fixture
def here(tmp_path: Path) -> World:
    """A world with a record, one that was cut, one that is gone but for its answer, and rubbish."""
    made = World(tmp_path)
    made.sweep()
    record = Record(job(1), "PUBLISHED", "x.job", "/dropbox", "host", "/workspace").document()
    cut = b'0123abcd %s {"dropbox": "/dr' % job(2).encode()
    (made.state / "journal").write_bytes(journal.line(job(1), Step(record, {})) + cut)
    inner = made.dropbox / ".hpc_batch"
    (inner / f"{job(2)}.drop").write_text("script: say\n")
    (inner / f"{job(3)}.answer").write_text("{}\n")
    (inner / "notes.drop").write_text("mine\n")
    return made


def test_a_pass_has_the_cluster_leave_every_job_alone_that_may_have_no_answer(
    here: World,
) -> None:
    cluster: Any = Cluster()
    with hold(here.config) as state:
        records, ledger = Records(state.path("journal")).load(), Ledger(state)
        upkeep = Upkeep(here.config, state, records, Report(here.config, state), ledger)
        upkeep._ask_for_a_sweep(cluster)
    assert [record.id for record in records] == [job(1)]
    assert cluster.known == [[job(1), job(2), job(3)]]


def test_cleaning_has_the_cluster_leave_the_same_jobs_alone(here: World) -> None:
    cluster = Cluster()
    with hold(here.config) as state:
        assert state.join()
        tidying._swept(cluster, here.config, state, None)  # type: ignore[arg-type]
    assert cluster.known == [[job(1), job(2), job(3)]]
