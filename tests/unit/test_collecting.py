"""What is made of a result: outputs are what the job made, and all of them, or none is placed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from desk import Desk, making

from hpc_batch import placing
from hpc_batch.bulk import Fetched, WantedOutput
from hpc_batch.collecting import Collecting, Collection, ticket_of
from hpc_batch.record import Target
from hpc_batch.tidings import Collected
from hpc_cluster import files

PILOT = "a" * 16
MADE = b"made"


class Fetching:
    """A data channel over which the same content comes for everything."""

    def fetch(self, wanted: list[Any]) -> list[Fetched]:
        for item in wanted:
            if isinstance(item, WantedOutput):
                descriptor = item.opener()
                files.write_at(descriptor, MADE, 0)
                files.close(descriptor)
        return [Fetched(len(MADE), hashlib.sha256(MADE).hexdigest()) for _ in wanted]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with making(tmp_path) as make:
        yield make("desk")


def collected(desk: Desk, outputs: dict[str, bytes]) -> tuple[str, Collection]:
    """Collect a job with the outputs `one` and `two` whose result says these; return its J."""
    desk.take()
    record = next(iter(desk.records))
    targets = tuple(Target(name, str(desk.here.out / name)) for name in ("one", "two"))
    record = replace(record, targets=targets, layout="flat")
    said = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in outputs.items()
    }
    ticket = ticket_of(f"{record.id}.a1.{PILOT}.ok")
    known = {ticket.name: Collected({"rc": 0, "outputs": said}, (), None)}
    nobody: Any = None
    collecting = Collecting(nobody, desk.records, nobody, Fetching)  # type: ignore[arg-type]
    return record.id, collecting.collect([(record, ticket)], 1 << 10, known)


def test_outputs_that_are_what_the_result_says_are_placed(desk: Desk) -> None:
    job, found = collected(desk, {"one": MADE, "two": MADE})
    assert [record.id for record in found.placing] == [job]
    assert found.nodes[job]["status"] == "ok"


def test_an_output_that_is_not_what_the_job_made_is_not_placed(desk: Desk) -> None:
    job, found = collected(desk, {"one": MADE, "two": b"else"})
    assert not found.placing and not found.doubts
    (record,) = found.answering
    assert found.nodes[job]["reason"] == "stage_out"
    assert "changed on the cluster after the job ended" in found.nodes[job]["message"]
    assert not os.path.exists(placing.temporary(record, 1, 1))


def test_a_result_that_does_not_name_every_output_places_none(desk: Desk) -> None:
    job, found = collected(desk, {"one": MADE})
    assert not found.placing
    assert found.nodes[job]["reason"] == "stage_out"
    assert "does not name every output" in found.nodes[job]["message"]
