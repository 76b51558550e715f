"""What a step tells of its jobs is in the log when the step ends, a line for each."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from world import World

from hpc_batch import logbook
from hpc_batch.state import hold

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}"


@pytest.mark.parametrize(
    ("name", "shown", "debug"), [("b \udcff", r"b \udcff", False), ("b c", "b c", True)]
)
def test_each_job_of_a_batch_has_a_line_of_its_own_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, shown: str, *, debug: bool
) -> None:
    with hold(World(tmp_path).config) as state, logbook.keep(state, debug=debug):
        logging.getLogger("hpc_batch").info("%s cancelled", "z")
        logbook.tell(f"{one} taken" for one in ("a", name))
        logbook.tell([])
        lines = state.path("log").read_text().splitlines()
    told = ["z cancelled", "a taken", f"{shown} taken"]
    assert [re.sub(f"^{TIME} INFO ", "", line) for line in lines] == told
    assert all(re.match(TIME, line) for line in lines)
    assert capsys.readouterr().err.count(" INFO ") == (3 if debug else 0)
