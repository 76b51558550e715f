"""What an answer repeats of a drop, whatever the journal holds of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from desk import Desk, making

DROP = "script: say\nargs:\n    words: a b\n"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with making(tmp_path) as make:
        made = make("desk")
        made.take()
        yield made


def answered(desk: Desk, papers: dict[str, Any]) -> str:
    """Answer a job whose journal holds these papers; return the answer."""
    record = next(iter(desk.records))
    desk.records.save_all([record.enter("STAGING")], {record.id: papers})
    desk.decide()
    desk.answer()
    return (desk.here.dropbox / f"{record.name}.finished").read_text()


@pytest.mark.parametrize(
    "papers",
    [{"echo": DROP}, {"job": DROP}, {"echo": 7, "job": DROP}],
    ids=["now", "before", "bad"],
)
def test_an_answer_repeats_the_description(desk: Desk, papers: dict[str, Any]) -> None:
    """A release before this one kept the job file itself."""
    assert answered(desk, papers).startswith(f"{DROP}job:\n")


def test_what_is_no_mapping_is_told_as_it_was(desk: Desk) -> None:
    text = answered(desk, {"job": "- a\n"})
    assert text.startswith("job:\n") and '    drop: "- a\\n"\n' in text
