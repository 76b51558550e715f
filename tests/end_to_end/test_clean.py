"""`hpc-batch clean`: only what is answered goes, and it says what went and what it left alone."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import journals
import pytest
from operating import Operator
from world import World, world

from hpc_batch import journal

FAKEBIN = Path(__file__).resolve().parents[1] / "fakebin"


@pytest.fixture
def operate(tmp_path: Path) -> Iterator[Operator]:
    memory = tmp_path / "slurm"
    memory.mkdir()
    environment = {"PATH": f"{FAKEBIN}:{os.environ['PATH']}", "FAKE_BATCH": str(memory)}
    with world(tmp_path) as made:
        yield Operator(made, environment)


def hold(operate: Operator, *names: str) -> None:
    """Have jobs wait on the cluster for a pilot that stays queued."""
    operate.environment["FAKE_SUBMIT"] = "hold"
    operate.world.configure(hpc={"scheduler": "slurm"})
    for name in names:
        operate.world.drop_copy(name)
    assert operate("pass").code == 0


def tree(root: Path) -> dict[str, bytes]:
    """Return every file below a folder, by its name."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def of_jobs(made: World) -> dict[str, bytes]:
    """Return everything of jobs but their records: of the dropbox, and the cluster's side."""
    found = {}
    for root in (made.dropbox, made.workspace):
        found.update({f"{root.name}/{name}": data for name, data in tree(root).items()})
    changing = ("clock", "probe", "instance")
    return {name: data for name, data in found.items() if not name.endswith(changing)}


def test_nothing_of_an_unanswered_job_goes_whatever_state_its_record_is_in(
    operate: Operator,
) -> None:
    hold(operate, "whole", "cut", "gone")
    made = operate.world
    before = of_jobs(made)
    kept = journals.steps(made.state / "journal")
    kept = {job: step for job, step in kept.items() if step.record["name"] != "gone.job"}
    lines = [journal.line(job, step) for job, step in kept.items()]
    cut = [line[:99] + line[100:] if b"cut.job" in line else line for line in lines]
    (made.state / "journal").write_bytes(b"".join(cut))
    done = operate("clean", "--older-than", "1s", "--kept")
    assert done.code == 0, done.err
    assert "3 jobs without an answer were left alone" in done.err
    assert of_jobs(made) == before
    assert (made.state / "journal").read_bytes() == b"".join(cut)


def test_a_state_that_does_not_belong_to_the_dropbox_is_refused(operate: Operator) -> None:
    hold(operate, "x")
    path = operate.world.state / "machine"
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, "generation": value["generation"] + 5}))
    before = of_jobs(operate.world)
    done = operate("clean", "--older-than", "1s")
    assert done.code == 78
    assert "resume --restored" in done.err
    assert of_jobs(operate.world) == before


def test_what_the_last_pass_left_in_its_trash_goes(operate: Operator) -> None:
    made = operate.world
    made.drop_copy("x")
    made.until("x")
    trash = made.dropbox / ".hpc_batch" / "trash"
    size = sum(path.stat().st_size for path in trash.iterdir())
    assert operate("clean").out == f"dropbox: 2 entries, {size} bytes\n"
    assert not list(trash.iterdir())


def test_what_a_power_cut_brought_back_of_an_answered_job_goes(operate: Operator) -> None:
    made = operate.world
    made.drop_copy("x")
    made.until("x")
    made.sweep()  # removes what the one before left in its trash
    instance = json.loads((made.state / "machine").read_text())["instance"]
    answered = made.dropbox / ".hpc_batch" / f"{instance}-{1:011x}-{1:016x}.drop"
    answered.write_text("script: copy\n")
    lost = made.dropbox / ".hpc_batch" / f"{instance}-{2:011x}-{2:016x}.drop"
    lost.write_text("script: copy\n")
    lost.with_suffix(".answer").write_text("{}\n")
    foreign = made.dropbox / ".hpc_batch" / "notes.txt"
    foreign.write_text("mine")
    assert operate("clean", "-n").out == "dropbox: 1 entries, 13 bytes\n"
    assert answered.exists()
    done = operate("clean")
    assert done.out == "dropbox: 1 entries, 13 bytes\n"
    assert "1 jobs without an answer were left alone" in done.err
    assert not answered.exists()
    assert lost.exists()
    assert lost.with_suffix(".answer").exists()
    assert foreign.exists()
    assert made.finished("x").exists()


def test_what_was_kept_goes_only_when_that_is_asked_for(operate: Operator) -> None:
    made = operate.world
    made.drop_copy("x")
    made.sweep(nocleanup=True)
    made.wait_for_tickets(1)
    made.sweep(nocleanup=True)
    assert made.answer("x")["status"] == "ok"
    kept = made.workspace / "kept"
    (job,) = kept.iterdir()
    (kept / "mine").mkdir()
    time.sleep(1.1)
    assert operate("--json", "clean", "--older-than", "1s").document["kept"] == 1
    assert job.exists()
    assert "--kept" in operate("clean", "--older-than", "1s").err
    assert operate("--json", "clean", "--kept", "--older-than", "1h").document["kept"] == 1
    told = operate("--json", "clean", "--kept", "--older-than", "1s").document
    assert (told["kept"], told["trash"], told["trouble"]) == (0, 0, None)
    assert {"what": "kept", "entries": 1, "bytes": 0} in told["removed"]
    assert os.listdir(kept) == ["mine"]


def test_without_the_cluster_the_rest_is_done_and_that_is_said(operate: Operator) -> None:
    made = operate.world
    made.drop("x", "say", args={"words": "x"})
    made.until("x")
    made.configure(remote={"python": "/nowhere/python"})
    time.sleep(1.1)
    done = operate("clean", "--older-than", "1s")
    assert done.code == 75
    assert "history: 1 entries" in done.out
    assert "nothing was removed on the cluster: " in done.err
    assert "/nowhere/python" in done.err
