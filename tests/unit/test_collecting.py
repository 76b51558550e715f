"""What is made of a result: outputs are what the job made, and all of them, or none is placed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from desk import MADE, Desk, Fetching, making

from hpc_batch import placing
from hpc_batch.bulk import Fetched, WantedStream
from hpc_batch.collecting import Collection
from hpc_batch.record import Target

PILOT = "a" * 16


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
    return record.id, desk.collect([record], outputs)


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


def test_a_stream_that_is_empty_is_not_asked_for(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Streams(Fetching):
        def fetch(self, wanted: Any) -> list[Fetched]:
            asked.extend(item.what for item in wanted if isinstance(item, WantedStream))
            return [Fetched(3, head=b"oh\n") for _ in wanted]

    monkeypatch.setattr("desk.Fetching", Streams)
    desk.take()
    record = replace(next(iter(desk.records)), targets=(), layout="flat")
    found = desk.collect([record], {}, stdout_bytes=0, stderr_bytes=3)
    assert asked == ["stderr"]
    assert (found.nodes[record.id]["stdout"], found.nodes[record.id]["stderr"]) == ("", "oh\n")
