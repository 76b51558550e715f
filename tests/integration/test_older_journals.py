"""A journal that knows less than happened: an older one was brought back, or its end is damaged.

Each shorter beginning of a job's lines is put in the journal's place while the world is further:
the job is on the cluster, or its answer is out. It never runs twice, is never answered twice, and
what its user has made of the outputs since stays.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from world import World, world

COUNTING = """\
    #!/bin/sh
    echo $HPC_BATCH_JOB_ID >> {starts}
    sleep <<seconds>>
    echo made > <<target>>
    """


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    """A world with one job, which counts its starts and overwrites an older file."""
    with world(tmp_path) as made:
        made.template("counting", COUNTING.format(starts=tmp_path / "starts"))
        (made.out / "x.out").write_text("older")
        yield made


def drop(here: World, seconds: int = 0) -> None:
    outputs = {"target": str(here.out / "x.out")}
    here.drop("x", "counting", args={"seconds": str(seconds)}, output_map=outputs)


def starts(here: World) -> int:
    return len((here.root / "starts").read_text().splitlines())


def lines(here: World) -> list[bytes]:
    return (here.state / "journal").read_bytes().splitlines(keepends=True)


def bring_back(here: World, older: list[bytes]) -> None:
    (here.state / "journal").write_bytes(b"".join(older))


def settle(here: World) -> None:
    """Make passes until no record is left."""
    for _ in range(20):
        here.sweep()
        if not here.records():
            return
    raise AssertionError(here.picture())


def test_a_job_that_is_on_the_cluster_is_not_sent_there_again(here: World) -> None:
    drop(here)
    here.sweep()
    here.wait_for_tickets(1)
    known = lines(here)
    (ticket,) = here.workspace.glob("done/*/*")
    for count in range(1, len(known)):
        bring_back(here, known[:count])
        here.sweep()
        if count < len(known) - 1:
            assert list(here.workspace.glob("done/*/*")) in ([ticket], []), count
            assert not list(here.workspace.glob("ready/*")), count
            assert not list(here.workspace.glob("running/*")), count
        if here.finished("x").exists():
            break
    answer = here.until("x")["x"]
    assert (answer["status"], answer["attempts"], starts(here)) == ("ok", 1, 1)
    assert (here.out / "x.out").read_text() == "made\n"


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_job_that_waits_or_runs_is_left_to_its_pilot(here: World, count: int) -> None:
    drop(here, seconds=3)
    here.sweep()
    known = lines(here)
    assert len(known) > count
    bring_back(here, known[:count])
    here.sweep()
    assert len([*here.workspace.glob("ready/*"), *here.workspace.glob("running/*")]) == 1
    assert [record["phase"] for record in here.records()] == ["PUBLISHED"]
    assert here.until("x")["x"]["status"] == "ok"
    assert starts(here) == 1
    assert not [*here.workspace.glob("incoming/*"), *here.workspace.glob("jobs/*")]


def test_a_job_that_was_answered_is_not_done_again(
    here: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its user has taken the answer, and has changed the output since."""
    drop(here)
    here.until("x")
    known = lines(here)
    here.finished("x").unlink()
    (here.out / "x.out").write_text("changed")
    assert len(known) > 6
    for count in range(1, len(known)):
        bring_back(here, known[:count])
        capsys.readouterr()
        settle(here)
        told = capsys.readouterr().err
        here.sweep()
        assert not here.finished("x").exists(), count
        assert (here.out / "x.out").read_text() == "changed", count
        assert starts(here) == 1, count
        assert os.listdir(here.out) == ["x.out"], count
        left = set(os.listdir(here.dropbox / ".hpc_batch"))
        assert left <= {"instance", "probe", "trash"}, count
        if 1 < count < len(known) - 2:  # in INTENT there is no drop; from ANSWERING on it is known
            assert "x.job was answered" in told, count
