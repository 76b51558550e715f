"""What pilots do for whoever waits, and what they leave: a fake batch system, real runners."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from workshop import Workshop, wait_until
from world import World, world

from hpc_cluster import backoff, clock, pilot, slots
from hpc_cluster.spool import Spool

FAKEBIN = Path(__file__).parent.parent / "fakebin"
P = secrets.token_hex(8)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Workshop]:
    made = Workshop(tmp_path / "workspace")
    yield made
    made.close()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path / "here") as made:
        yield made


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[Any]]]:
    """A fake Slurm that really starts pilots; returns a function that lists its jobs."""
    memory = tmp_path / "slurm"
    memory.mkdir()
    monkeypatch.setenv("PATH", f"{FAKEBIN}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_BATCH", str(memory))

    def jobs() -> list[Any]:
        return [json.loads(path.read_text()) for path in sorted(memory.iterdir())]

    yield jobs
    for job in jobs():
        if job["pid"]:
            wait_until(lambda pid=job["pid"]: clock.process_start(pid) is None)


def known(shop: Workshop, name: str) -> dict[str, Any]:
    return pilot.read(shop.spool, name)


# ---- the walltime --------------------------------------------------------------------------------


def test_a_pilot_that_must_leave_all_that_waits_ends_at_once_and_frees_its_slot(
    shop: Workshop,
) -> None:
    shop.job("#!/bin/sh\nsleep 1.5\n")
    long = shop.job("#!/bin/sh\n", time_limit=55)
    policy = {"walltime": 60, "linger": 600}
    [first] = shop.keep(**policy)["submitted"]
    # The long one is begun by a fresh pilot; this one is not, any more.
    wait_until(lambda: shop.spool.tickets("done", "0123abcd"))
    wait_until(lambda: known(shop, first).get("closed"), 20)
    assert [t.job for t in shop.spool.tickets("ready")] == [long]
    wait_until(lambda: shop.keep(**policy)["submitted"], 20)
    wait_until(lambda: shop.done().get(long) == "ok")
    assert len(pilot.pilots(shop.spool)) == 2


def test_no_pilot_is_submitted_for_what_fits_none(shop: Workshop) -> None:
    shop.job("#!/bin/sh\n", time_limit=100)
    for _ in range(3):
        assert shop.keep(walltime=60)["submitted"] == []
    assert len(shop.keep(walltime=120)["submitted"]) == 1


def test_a_pilot_that_was_given_less_than_it_was_submitted_for_still_takes_its_job(
    shop: Workshop,
) -> None:
    """Else each pilot would leave the job to the next one, for ever."""
    job = shop.job("#!/bin/sh\n", time_limit=500)
    end = str(int(time.time()) + 100)
    assert shop.drain("--walltime", "600", SLURM_JOB_ID="7", SLURM_JOB_END_TIME=end) == 0
    assert shop.done() == {job: "ok"}


def test_a_job_without_a_time_limit_that_outlives_pilots_is_answered_and_not_run_for_ever(
    shop: Workshop,
) -> None:
    endless = shop.job("#!/bin/sh\nexec sleep 600\n")
    behind = shop.job("#!/bin/sh\n")
    pilots = 0
    while shop.done().keys() < {endless, behind}:
        assert shop.drain("--walltime", "3") == 0
        pilots += 1
        assert pilots <= 3
    result = shop.result(endless)
    assert (result["kind"], result["reason"]) == ("fail", "time_limit")
    assert shop.done()[behind] == "ok"


def test_a_job_that_was_interrupted_by_the_end_gets_a_whole_pilot_next(shop: Workshop) -> None:
    first = shop.job("#!/bin/sh\nsleep 1.5\n")
    endless = shop.job("#!/bin/sh\nexec sleep 600\n")
    assert shop.drain("--walltime", "4") == 0
    assert shop.done() == {first: "ok"}
    assert [(t.job, t.starts, t.crashes) for t in shop.spool.tickets("ready")] == [(endless, 1, 0)]
    assert shop.drain("--walltime", "4") == 0
    assert shop.result(endless, 2)["reason"] == "time_limit"


# ---- the successor -------------------------------------------------------------------------------


def test_the_next_pilot_is_queued_while_one_runs_that_the_work_outlasts(
    shop: Workshop, slurm: Callable[[], list[Any]]
) -> None:
    jobs = [shop.job("#!/bin/sh\nsleep 2\n", time_limit=50) for _ in range(3)]
    policy = {"scheduler": "slurm", "walltime": 100, "successor": True}
    [first] = shop.keep(**policy)["submitted"]
    wait_until(lambda: known(shop, first).get("outlasted"))
    assert shop.keep(**{**policy, "successor": False})["submitted"] == []
    [second] = shop.keep(**policy)["submitted"]
    assert slots.holders(shop.spool) == {0: first, 1: second}
    for _ in range(3):
        assert shop.keep(**policy)["submitted"] == [], "never more than max + 1"
    wait_until(lambda: shop.done() == dict.fromkeys(jobs, "ok"))
    assert "--dependency" not in json.dumps(slurm()[1]["argv"])


def test_without_successor_a_pilot_estimates_nothing(shop: Workshop) -> None:
    for _ in range(2):
        shop.job("#!/bin/sh\nsleep 0.5\n", time_limit=50)
    [name] = shop.keep(walltime=100)["submitted"]
    wait_until(lambda: known(shop, name).get("closed"))
    assert known(shop, name)["outlasted"] is False


# ---- bad nodes -----------------------------------------------------------------------------------


def test_a_node_without_the_gpu_that_was_asked_for_ends_its_pilot_at_once(
    here: World, slurm: Callable[[], list[Any]]
) -> None:
    if any(name.startswith("nvidia") for name in os.listdir("/dev")):
        pytest.skip("this machine has a GPU")
    here.configure(hpc={"scheduler": "slurm", "gres": "gpu:v100:1"})
    here.drop_copy("one")
    here.sweep()
    wait_until(lambda: clock.process_start(slurm()[0]["pid"]) is None)
    here.sweep()
    [trouble] = here.status()["trouble"]
    assert f"no GPU is to be seen on {clock.node()}" in trouble["message"]
    assert f"ended on {clock.node()} before it claimed a job" in trouble["message"]
    wait_until(lambda: clock.process_start(slurm()[-1]["pid"]) is None)
    here.sweep()
    assert len(slurm()) == 2, "the second failure in a row costs a minute"
    held = os.listdir(here.workspace / "slots" / "0")
    assert held == ["free"]
    assert [p.name.split(".")[1] for p in (here.workspace / "ready").iterdir()] == ["a0c0"]


def bare_path(folder: Path) -> str:
    """Make a folder of programs without any container program."""
    for name in ("bash", "sh", "sleep", "env", "cat", "cp"):
        found = next(p for p in (Path("/bin") / name, Path("/usr/bin") / name) if p.exists())
        (folder / name).symlink_to(found)
    return str(folder)


@pytest.mark.parametrize("body", ["singularity run x.sif", "echo plain"])
def test_a_node_without_container_programs_fails_only_where_a_job_needs_one(
    shop: Workshop, tmp_path: Path, body: str
) -> None:
    (tmp_path / "bin").mkdir()
    job = shop.job(f"#!/bin/sh\n{body}\n")
    pilot.make(shop.spool, P, {"slot": None, "batch": "slurm", "native_id": None})
    runner = shop.start(P, "--linger", "0", PATH=bare_path(tmp_path / "bin"))
    bad = body != "echo plain"
    assert runner.wait(60) == (1 if bad else 0)
    warning = f"neither singularity nor apptainer is on the PATH of {clock.node()}"
    assert known(shop, P)["warnings"] == [warning]
    if bad:
        assert known(shop, P)["trouble"] == f"{warning}, and jobs need one"
        assert [(t.job, t.starts) for t in shop.spool.tickets("ready")] == [(job, 0)]
    else:
        assert shop.done() == {job: "ok"}


def test_a_pilot_that_gave_back_all_it_claimed_is_a_failure(shop: Workshop) -> None:
    """Its successors would do the same, one after the other."""
    shop.job("#!/bin/sh\n")
    info = {"slot": None, "native_id": "1.1.gone", "batch": "local", "submitted": clock.iso()}
    pilot.make(shop.spool, P, info)
    said = {"started": "then", "claimed": 3, "finished": 0, "closed": "now", "trouble": "full"}
    pilot.write(shop.spool, P, said, "runner.json")
    assert shop.keep(submit=False)["trouble"]["message"].endswith("(full)")
    assert backoff.read(shop.spool)["failures"] == 1


# ---- what people are told ------------------------------------------------------------------------


def submitted(here: World, name: str) -> dict[str, Any]:
    node = yaml.safe_load((here.dropbox / f"{name}.job.submitted").read_text())["hpc"]
    assert isinstance(node, dict)
    return node


def test_a_refusal_reaches_the_operator_once_and_the_job_says_what_it_waits_for(
    here: World,
    slurm: Callable[[], list[Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here.configure(hpc={"scheduler": "slurm", "account": "nobody"})
    monkeypatch.setenv("FAKE_SUBMIT", "refuse")
    here.drop_copy("one")
    for _ in range(4):
        here.sweep()
    said = capsys.readouterr().err
    assert said.count("Invalid account") == 1
    [trouble] = here.status()["trouble"]
    assert "Invalid account" in trouble["message"] and trouble["next"] > trouble["since"]
    [job] = here.status()["jobs"]
    assert job["state"] == "staged"
    assert job["message"].startswith("waits for a pilot: ") and "Invalid account" in job["message"]
    assert f"the next try is at {trouble['next'][:14]}" in job["message"]
    assert "Invalid account" in submitted(here, "one")["message"]
    # The operator mends it; nothing else has to be done.
    monkeypatch.setenv("FAKE_SUBMIT", "")
    os.utime(here.workspace / "pilots" / "trouble", (0, 0))
    here.sweep()
    assert "message" not in submitted(here, "one")
    assert here.until("one")["one"]["status"] == "ok"
    assert "over, since" in capsys.readouterr().err
    assert here.status()["trouble"] == []


def test_a_mended_configuration_does_not_wait_out_the_back_off(
    here: World, slurm: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    here.configure(hpc={"scheduler": "slurm", "account": "nobody"})
    monkeypatch.setenv("FAKE_SUBMIT", "refuse")
    here.drop_copy("one")
    for _ in range(4):
        here.sweep()
    path = here.workspace / "pilots" / "trouble"
    assert json.loads(path.read_text())["failures"] == 2  # and the next try is in a minute
    monkeypatch.setenv("FAKE_SUBMIT", "")
    here.sweep()
    assert slurm() == []
    here.configure(hpc={"scheduler": "slurm", "account": "somebody"})
    here.sweep()
    assert len(slurm()) == 1
    assert here.until("one")["one"]["status"] == "ok"


def test_a_job_says_which_queued_pilot_it_waits_for(
    here: World, slurm: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    here.configure(hpc={"scheduler": "slurm"})
    monkeypatch.setenv("FAKE_SUBMIT", "hold")
    here.drop_copy("one")
    here.sweep()
    here.sweep()
    [job] = here.status()["jobs"]
    assert job["message"].startswith("waits for a pilot: 1 is queued since ")
    assert job["message"].endswith("(Resources)")
    assert "message" not in submitted(here, "one")


# ---- time limits that fit no pilot ---------------------------------------------------------------


def test_a_time_limit_that_fits_no_pilot_is_rejected_when_the_job_is_taken(here: World) -> None:
    here.template("long", "#!/bin/bash\n#HPC --time-limit=8h\ntrue\n")
    here.drop("one", "long")
    node = here.until("one")["one"]
    assert (node["status"], node["reason"], node["rc"]) == ("error", "rejected", None)
    assert "time limit of 8h" in node["message"] and "[hpc] walltime is 8h" in node["message"]


def test_jobs_that_a_shorter_walltime_leaves_behind_wait_for_the_operator(here: World) -> None:
    here.template("limited", "#!/bin/bash\n#HPC --time-limit=2h\ntrue\n")
    spool, _ = Spool.make(str(here.workspace))
    for _ in range(2):
        backoff.note(spool, "submit", "no pilot is submitted for a minute", None)
    here.drop("one", "limited")
    here.sweep()
    here.configure(hpc={"scheduler": "local", "walltime": "1h"})
    assert here.sweep() == 75
    [job] = here.status()["jobs"]
    assert job["state"] == "staged" and "[hpc] walltime is 1h. Raise it" in job["message"]
    here.configure()
    (here.workspace / "pilots" / "trouble").unlink()
    node = here.until("one")["one"]
    assert (node["status"], node["attempts"]) == ("ok", 1)
