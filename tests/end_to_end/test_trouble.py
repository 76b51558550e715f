"""The operator's side of trouble: in each stuck situation `status` and `explain` tell the truth.

What is stuck, why, since when, and what happens next; and one line when nothing is.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import journals
import pytest
from operating import Operator
from world import world

from hpc_batch import journal

FAKEBIN = Path(__file__).resolve().parents[1] / "fakebin"


@pytest.fixture
def operate(tmp_path: Path) -> Iterator[Operator]:
    """Commands about a world whose pilots wait in the queue for ever."""
    memory = tmp_path / "slurm"
    memory.mkdir()
    environment = {
        "PATH": f"{FAKEBIN}:{os.environ['PATH']}",
        "FAKE_BATCH": str(memory),
        "FAKE_SUBMIT": "hold",
    }
    with world(tmp_path, hpc={"scheduler": "slurm"}) as made:
        yield Operator(made, environment)


@pytest.fixture
def staged(operate: Operator) -> Operator:
    """The same, with a job `x` that waits for them."""
    operate.world.drop("x", "say", args={"words": "x"})
    operate("pass")
    return operate


@contextmanager
def small_disk(folder: Path) -> Iterator[Callable[[], None]]:
    """Mount a file system of 64 KiB on a folder; yields what fills it with a file `filler`."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("it takes root to mount a small file system")

    def fill() -> None:
        with suppress(OSError), open(folder / "filler", "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    try:
        yield fill
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def status(operate: Operator) -> list[str]:
    """Return the lines of `status`."""
    done = operate("status")
    assert done.code == 0, done.err
    return done.out.splitlines()


def explained(operate: Operator, job: str = "x") -> dict[str, Any]:
    done = operate("--json", "explain", job)
    assert done.code == 0, done.err
    (row,) = done.document["jobs"]
    assert isinstance(row, dict)
    return row


def in_two_days(row: dict[str, Any], reason: str) -> bool:
    return "every pass tries again; at about 20" in row["next"] and row["next"].endswith(reason)


def test_peace_is_one_line(staged: Operator) -> None:
    (line,) = status(staged)
    assert line.startswith("all is well: 1 staged; pilot submitted")


def test_a_pass_that_cannot_begin_is_told_until_one_can(staged: Operator) -> None:
    slurm = {"scheduler": "slurm"}
    staged.world.configure(hpc=slurm, hpc_env={"workspace": staged.world.root / "elsewhere"})
    assert staged("pass").code == 78
    first, second = status(staged)
    assert "all is well" not in first
    assert "no pass has worked since" in second
    assert "1 jobs are still on" in second
    assert "no pass has worked since" in explained(staged)["why"]
    told = staged("--json", "status").document["failed"]
    assert (told["code"], told["since"]) == (78, told["at"])
    assert staged("pass").code == 78
    assert staged("--json", "status").document["failed"]["since"] == told["since"]
    staged.world.configure(hpc=slurm)
    assert staged("pass").code == 0
    assert len(status(staged)) == 1
    assert staged("--json", "status").document["failed"] is None


def test_a_damaged_status_or_ledger_is_made_anew(operate: Operator) -> None:
    operate("pass")
    for name in ("status.json", "trouble.json", "swept.json", "failed.json", "paused"):
        (operate.world.state / name).write_bytes(b'{"protocol": 1, "jo')
    assert operate("pass").code == 0
    assert len(status(operate)) == 1


def test_a_record_that_cannot_be_read_is_its_jobs_trouble(staged: Operator) -> None:
    path = staged.world.state / "journal"
    path.write_bytes(path.read_bytes()[:40])
    staged("pass")
    lines = status(staged)
    assert len(lines) == 2
    assert "x.job is stuck since" in lines[1]
    assert "is damaged" in lines[1]
    row = explained(staged)
    assert "is damaged" in row["why"]
    assert "resume --restored" in row["next"]
    assert "is damaged" in staged("list").out
    staged("resume", "--restored")
    staged("pass")
    assert len(status(staged)) == 1


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_without_a_journal_nothing_is_touched_until_it_is_back(staged: Operator, kind: str) -> None:
    made = staged.world
    path = made.state / "journal"
    whole = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    made.drop("y", "say", args={"words": "y"})
    before = sorted(os.listdir(made.dropbox / ".hpc_batch"))
    told = staged("pass")
    assert told.code == 75 and str(path) in told.err and "resume --restored" in told.err
    assert "no pass has worked since" in status(staged)[1]
    assert (made.dropbox / "y.job").exists()
    assert sorted(os.listdir(made.dropbox / ".hpc_batch")) == before
    if kind == "folder":
        path.rmdir()
    path.write_bytes(whole)
    assert staged("pass").code == 0
    assert {r["name"] for r in made.records()} == {"x.job", "y.job"}


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_a_journal_that_does_not_come_back_is_begun_anew(staged: Operator, kind: str) -> None:
    made = staged.world
    path = made.state / "journal"
    path.unlink()
    if kind == "folder":
        path.mkdir()
    assert "x.job: was taken after the backup was made" in staged("resume", "--restored").out
    assert staged("pass").code == 0
    (record,) = made.records()
    assert record["name"] == "x.job"
    assert len(status(staged)) == 1


def test_a_ticket_that_is_gone_is_looked_for_and_that_is_told(staged: Operator) -> None:
    (ticket,) = (staged.world.workspace / "ready").iterdir()
    ticket.unlink()
    staged("pass")
    _, line = status(staged)
    assert "x.job is stuck since" in line
    assert "its ticket is not to be found" in line
    row = explained(staged)
    assert "its ticket is not to be found" in row["why"]
    assert row["next"].endswith("it is answered with the error lost")
    (job,) = staged("--json", "list").document["jobs"]
    assert job["stuck"]["reason"] == "lost"
    assert job["stuck"]["until"] > job["stuck"]["since"]
    ticket.touch()
    staged("pass")
    assert len(status(staged)) == 1


def test_a_job_that_fits_no_pilot_any_more_says_so_and_until_when(operate: Operator) -> None:
    operate.world.template("long", "#!/bin/bash\n#HPC --time-limit=5h\ntrue\n")
    operate.world.drop("x", "long")
    operate("pass")
    operate.world.configure(hpc={"scheduler": "slurm", "walltime": "1h"})
    assert operate("pass").code == 75
    _, line = status(operate)
    assert "x.job is stuck since" in line
    assert "does not fit a pilot" in line
    row = explained(operate)
    assert "does not fit a pilot" in row["why"]
    assert in_two_days(row, "rejected")
    assert "does not fit a pilot" in operate("list").out
    assert "it is answered with the error rejected" in operate("show", "x").out


def test_an_output_folder_without_room_keeps_its_job_and_is_told(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    with small_disk(small) as fill, world(tmp_path) as made:
        operate = Operator(made)
        source = tmp_path / "x.in"
        source.write_bytes(b"y" * 30000)
        inputs, outputs = {"source": str(source)}, {"target": str(small / "x.out")}
        made.drop("x", "copy", input_map=inputs, output_map=outputs)
        operate("pass")
        made.wait_for_tickets(1)
        fill()
        assert operate("pass").code == 75
        _, line = status(operate)
        assert "x.job is stuck since" in line
        assert "No space left on device" in line
        row = explained(operate)
        assert "No space left on device" in row["why"]
        assert in_two_days(row, "stage_out")
        (small / "filler").unlink()
        assert operate("pass").code == 0
        assert made.answer("x")["status"] == "ok"
        assert len(status(operate)) == 1


def test_a_drop_that_a_full_dropbox_keeps_out_is_shown_once_with_the_reason(
    operate: Operator,
) -> None:
    with small_disk(operate.world.dropbox) as fill:
        operate("pass")
        operate.world.drop("x", "say", args={"words": "x"})
        fill()
        for _ in range(2):
            assert operate("pass").code == 75
        (job,) = operate("--json", "list").document["jobs"]
        assert job["state"] == "waiting"
        row = explained(operate)
        assert "it cannot be taken" in row["why"]
        assert "No space left on device" in row["why"]
        assert any("x.job: cannot accept (No space left" in line for line in status(operate))
        (operate.world.dropbox / "filler").unlink()
        assert operate("pass").code == 0
        assert explained(operate)["state"] == "staged"
        assert len(status(operate)) == 1


def test_a_pause_shows_at_once_and_so_does_its_end(operate: Operator) -> None:
    operate("pass")
    operate("pause", "new disks", "--until", "6h")
    _, line = status(operate)
    assert "new disks; new jobs wait" in line
    operate("resume")
    assert len(status(operate)) == 1
    operate("pause")
    assert ": ;" not in status(operate)[1]


def test_a_cluster_that_answers_and_then_refuses_is_told_once(staged: Operator) -> None:
    done = staged.world.workspace / "done"
    done.rename(done.with_name("moved"))
    first, second = staged("pass"), staged("pass")
    assert "is missing" in first.err
    assert second.err == ""
    lines = status(staged)
    assert len(lines) == 2
    assert "the cluster cannot be used since" in lines[1]
    assert "is missing" in lines[1]
    since = json.loads((staged.world.state / "status.json").read_text())["cluster"]["since"]
    staged("pass")
    assert since in status(staged)[1]
    done.with_name("moved").rename(done)
    assert "over, since" in staged("pass").err
    assert len(status(staged)) == 1


@pytest.mark.parametrize("damage", ['{"phase": "PUBLI', "[]", '{"protocol": 1}', '{"phase": 7}'])
def test_a_damaged_record_is_told_and_delays_nobody_else(operate: Operator, damage: str) -> None:
    here = operate.world
    here.drop("hurt", "say", args={"words": "x"})
    operate("pass")
    path = here.state / "journal"
    ((job, step),) = journals.steps(path).items()
    content = f"{job} {damage}\n".encode()
    damaged, whole = b"%08x %s" % (journal.checksum(content), content), journal.line(job, step)
    path.write_bytes(damaged)
    here.drop("well", "nothing")
    told = operate("pass")
    assert told.code == 75 and str(path) in told.err and "resume --restored" in told.err
    assert not (here.dropbox / "well.job").exists()
    path.write_bytes(path.read_bytes() + whole)
    assert operate("pass").code == 0
    assert {r["name"] for r in here.records()} == {"hurt.job", "well.job"}
    path.write_bytes(damaged)
    restored = operate("resume", "--restored")
    assert "damaged" in restored.out + restored.err
    assert (here.dropbox / "hurt.job").exists()
    assert operate("pass").code == 0
