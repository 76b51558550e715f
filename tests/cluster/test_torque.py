"""Torque's dialect against real programs: Slurm's own qsub, qstat and qdel."""

from __future__ import annotations

import time

import pytest
from cluster.service import Site

from hpc_cluster.batch.nonce import short_name

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def torque(site: Site) -> Site:
    """A service host whose cluster is asked through qsub; its workspace's name is no shell word."""
    inside = f"{site.inside} it's & more"
    site.change(hpc={"scheduler": "torque", "options": None}, hpc_env={"workspace": inside})
    site.workspace = site.cluster.path(inside)
    return site


def pilots(site: Site) -> list[dict[str, str]]:
    """Return the pilots of the workspace as Slurm lists them, with P as their comment."""
    names = {
        short_name(p.parent.name): p.parent.name for p in site.workspace.glob("pilots/*/pilot.json")
    }
    listed = [job for job in site.cluster.queue(site.user) if job["name"] in names]
    return [{**job, "comment": names[job["name"]]} for job in listed]


def test_a_job_goes_through_qsub_and_back(torque: Site) -> None:
    target = torque.drop_copy("thing", "hello")
    answer = torque.until("thing")["thing"]
    assert (answer["status"], target.read_text()) == ("ok", "hello")
    (pilot,) = pilots(torque)
    assert (answer["pilot"]["native_id"], answer["node"]) == (pilot["id"], pilot["node"])
    torque.drop_copy("second")
    assert torque.until("second")["second"]["status"] == "ok"
    end = time.monotonic() + 60
    while (states := {pilot["state"] for pilot in pilots(torque)}) != {"COMPLETED"}:
        assert time.monotonic() < end, states
        time.sleep(0.5)
    assert len(pilots(torque)) == 2


def test_the_wrappers_ask_slurm_for_everything_but_mail_and_quality(torque: Site) -> None:
    torque.cluster.knob("queue_wait", 60)
    torque.change(
        hpc={
            "walltime": "9m",
            "partition": "gpu",
            "gres": "gpu:1",
            "account": "proj",
            "memory": "1",
            "options": "-l nodes=1:ppn=1:gpus=1 -p 3",
        }
    )
    torque.drop_copy("thing")
    torque.sweep()
    (pilot,) = pilots(torque)
    shown = torque.cluster.show(pilot["id"])
    assert (shown["Partition"], shown["Account"]) == ("gpu", "proj")
    assert (shown["TimeLimit"], shown["Requeue"]) == ("00:09:00", "0")
    assert shown["MinMemoryNode"] == "1G" and "gpu:1" in shown["TresPerNode"]
    assert shown["StdOut"] == "/dev/null"
    (one,) = torque.status()["pilots"]
    assert one["native_id"] == pilot["id"]
    torque.sweep()
    assert [p["state"] for p in torque.status()["pilots"]] == ["queued"]


def test_the_warning_signal_reaches_the_runner(torque: Site) -> None:
    torque.change(hpc={"walltime": "2m"}, pilot={"linger": 120})
    torque.drop_copy("thing")
    torque.until("thing")
    (pilot,) = pilots(torque)
    # Slurm sends it up to a minute early: 90 s before the end of two minutes is soon.
    torque.wait(lambda: "warned by the batch system" in torque.log(pilot["comment"]), "it", 90)
    torque.wait(lambda: pilots(torque)[0]["state"] == "COMPLETED", "the pilot ends", 30)


def test_a_refusal_is_shown_in_slurms_words(torque: Site) -> None:
    torque.change(hpc={"partition": "nope"})
    torque.drop_copy("thing")
    torque.sweep()
    (trouble,) = torque.status()["trouble"]
    assert "invalid partition specified: nope" in trouble["message"]


def test_nothing_of_the_login_session_goes_over(torque: Site) -> None:
    torque.change(remote={"prologue": "export TOKEN=secret"})
    torque.template("environment", "#!/bin/bash\nenv > <<target>>\n")
    torque.drop("thing", "environment", output_map={"target": str(torque.out / "env")})
    assert torque.until("thing")["thing"]["status"] == "ok"
    seen = (torque.out / "env").read_text()
    assert "TOKEN" not in seen and "SSH_CONNECTION" not in seen and "HPC_BATCH_JOB_ID=" in seen


def test_a_pilot_that_qdel_ends_hands_its_job_back(torque: Site) -> None:
    torque.template("once", '#!/bin/bash\n[ "$HPC_BATCH_ATTEMPT" = 2 ] || exec sleep 60\n')
    torque.drop("thing", "once")
    torque.sweep()
    torque.wait(lambda: list(torque.workspace.glob("jobs/*/a1/job.sh")), "the job starts")
    (pilot,) = pilots(torque)
    torque.cluster.run(torque.user, f"qdel {pilot['id']}")
    torque.wait(lambda: list(torque.workspace.glob("ready/*.a1c0")), "the job is handed back")
    answer = torque.until("thing")["thing"]
    assert (answer["status"], answer["attempts"]) == ("ok", 2)
