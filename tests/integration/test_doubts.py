"""What one look does not find on the cluster is looked for again before it is believed missing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from world import World, world

from hpc_batch.plan import DOUBT_LOOKS, DOUBT_S
from hpc_cluster import files


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    """A world with a job that has ended, and that no pass has collected."""
    with world(tmp_path) as made:
        source = tmp_path / "x.in"
        source.write_text("hello")
        made.template("talk", "#!/bin/sh\necho said\ncat <<source>> > <<target>>\n")
        outputs = {"target": str(made.out / "x")}
        made.drop("x", "talk", input_map={"source": str(source)}, output_map=outputs)
        made.sweep()
        made.wait_for_tickets(1)
        yield made


def hide(here: World, name: str) -> tuple[Path, Path]:
    """Have a file of the job not be there for now; return where it is and where it belongs."""
    (path,) = here.workspace.glob(f"jobs/*/a1/{name}")
    hidden = here.root / "hidden"
    path.rename(hidden)
    return hidden, path


def pass_time(here: World, seconds: float) -> None:
    """Have passes believe that so much time went by."""
    path = str(here.state / "machine")
    kept = files.read_json(path)
    kept["elapsed"]["seconds"] += seconds
    files.replace(path, files.to_json(kept))


FILES = ("result.json", "stdout", "work/x")


@pytest.mark.parametrize("name", FILES)
def test_what_comes_back_was_never_missing(here: World, name: str) -> None:
    hidden, path = hide(here, name)
    for _ in range(DOUBT_LOOKS + 1):
        assert here.sweep() == 0
        assert not here.finished("x").exists()
    pass_time(here, 2 * DOUBT_S)
    hidden.rename(path)
    here.sweep()
    answer = here.answer("x")
    assert (answer["status"], answer["stdout"]) == ("ok", "said\n")
    assert (here.out / "x").read_text() == "hello"


@pytest.mark.parametrize(
    ("name", "reason"), [("result.json", "lost"), ("stdout", "completed"), ("work/x", "stage_out")]
)
def test_what_stays_missing_is_believed_after_several_looks_and_a_while(
    here: World, name: str, reason: str
) -> None:
    hide(here, name)
    here.sweep()
    pass_time(here, DOUBT_S)
    for _ in range(DOUBT_LOOKS - 2):
        here.sweep()
        assert not here.finished("x").exists()
    here.sweep()
    assert here.answer("x")["reason"] == reason
    here.until("x")
    assert sorted(os.listdir(here.out)) == (["x"] if reason == "completed" else [])


def test_a_job_in_doubt_says_so(here: World) -> None:
    hide(here, "result.json")
    here.sweep()
    (job,) = here.status()["jobs"]
    assert "result.json cannot be read" in job["stuck"]["why"]
    assert job["stuck"]["until"]
    (record,) = here.records()
    assert (record["phase"], record["doubts"], record["stuck_at"]) == ("PUBLISHED", 1, None)


def test_a_stream_that_is_shorter_than_it_was_is_in_doubt(here: World) -> None:
    (path,) = here.workspace.glob("jobs/*/a1/stdout")
    path.chmod(0o600)
    text = path.read_text()
    path.write_text("")
    here.sweep()
    assert not here.finished("x").exists()
    path.write_text(text)
    here.sweep()
    assert here.answer("x")["stdout"] == "said\n"
