"""Slurm's dialect against a real Slurm: what a pilot asks for, what it hears, and when it ends."""

from __future__ import annotations

import time
from datetime import datetime, timezone

import pytest
from cluster.service import Site

pytestmark = pytest.mark.timeout(900)


def test_slurm_is_told_everything(site: Site) -> None:
    site.cluster.knob("queue_wait", 60)
    site.change(
        hpc={
            "walltime": "9m",
            "partition": "gpu",
            "gres": "gpu:v100:1",
            "account": "proj",
            "qos": "high",
            "memory": "1",
            "email": "amp@example.org",
            "options": "--nice=5 --constraint=gpu",
        }
    )
    site.drop_copy("thing")
    site.sweep()
    (pilot,) = site.pilots_listed()
    shown = site.cluster.show(pilot["id"])
    assert {key: shown[key] for key in ("Account", "Partition", "Nice", "Features")} == {
        "Account": "proj",
        "Partition": "gpu",
        "Nice": "5",
        "Features": "gpu",
    }
    assert shown["Comment"] == pilot["comment"] and shown["WorkDir"] == site.inside
    assert (shown["TresPerNode"], shown["MinMemoryNode"]) == ("gres/gpu:v100:1", "1G")
    assert (shown["MailUser"], shown["MailType"]) == ("amp@example.org", "FAIL")
    assert (shown["Requeue"], shown["TimeLimit"]) == ("0", "00:09:00")
    line = site.cluster.scontrol("show", "job", pilot["id"])
    for word in ("--qos=high", "--export=NONE", "--signal=B:USR1@90", "--open-mode=append"):
        assert word in line


def test_each_slot_of_each_workspace_has_a_name_of_its_own(site: Site) -> None:
    site.change(pilot={"max": 2})
    for number in range(4):
        site.drop_sleep(f"job{number}", 2)
    site.sweep()
    names = [pilot["name"] for pilot in site.pilots_listed()]
    assert sorted(name[-2:] for name in names) == ["-0", "-1"]
    assert len({name[:-2] for name in names}) == 1
    site.until(*(f"job{n}" for n in range(4)))
    first = names[0][:-2]
    site.change(hpc_env={"workspace": f"{site.inside}.other"})
    site.workspace = site.cluster.path(f"{site.inside}.other")
    site.drop_copy("thing")
    site.sweep()
    (pilot,) = site.pilots_listed()
    assert pilot["name"][:-2] != first


def test_a_pass_asks_squeue_once(site: Site) -> None:
    folder = site.cluster.path(f"{site.home}/counted")
    site.cluster.run(site.user, "mkdir -p counted")
    script = '#!/bin/sh\necho "$@" >> ~/counted/calls\nexec /usr/bin/squeue "$@"\n'
    (folder / "squeue").write_text(script)
    (folder / "squeue").chmod(0o755)
    site.change(pilot={"max": 2}, remote={"prologue": "export PATH=$HOME/counted:$PATH"})
    for number in range(4):
        site.drop_sleep(f"job{number}", 3)
    site.sweep()
    before = len((folder / "calls").read_text().splitlines()) if (folder / "calls").exists() else 0
    site.sweep()
    calls = (folder / "calls").read_text().splitlines()[before:]
    assert len(calls) == 1 and calls[0].count("hpcb") == 2


def test_a_job_sees_slurm_and_the_prologue_but_not_the_login_session(site: Site) -> None:
    site.change(hpc={"prologue": "export FROM_PROLOGUE=yes"})
    site.template("environment", "#!/bin/bash\nenv > <<target>>\n")
    site.drop("thing", "environment", output_map={"target": str(site.out / "env")})
    assert site.until("thing")["thing"]["status"] == "ok"
    seen = dict(line.split("=", 1) for line in (site.out / "env").read_text().splitlines())
    assert seen["FROM_PROLOGUE"] == "yes" and seen["HOME"] == site.home
    assert {"SLURM_JOB_ID", "HPC_BATCH_JOB_ID"} <= set(seen)
    assert not {"SSH_CONNECTION", "SSH_CLIENT"} & set(seen)


def test_a_job_gets_the_gpu_that_its_pilot_asked_for(site: Site) -> None:
    site.change(hpc={"partition": "gpu", "gres": "gpu:v100:1"})
    site.drop("thing", "shell", args={"code": "echo $CUDA_VISIBLE_DEVICES on $SLURMD_NODENAME"})
    answer = site.until("thing")["thing"]
    assert (answer["status"], answer["stdout"], answer["node"]) == ("ok", "0 on g1\n", "g1")


def test_the_warning_signal_reaches_the_runner_and_no_job(site: Site) -> None:
    site.change(pilot={"linger": 60})
    pilot = site.start_job("first", 4)
    site.cluster.scancel("--signal=USR1", "--batch", pilot["id"])
    site.wait(lambda: "warned by the batch system" in site.log(pilot["comment"]), "the warning")
    site.drop_copy("second")
    answers = site.until("first", "second")
    assert {a["status"] for a in answers.values()} == {"ok"}
    assert answers["first"]["attempts"] == 1
    assert answers["first"]["pilot"]["id"] != answers["second"]["pilot"]["id"]


@pytest.mark.parametrize("told", [True, False])
def test_the_runner_knows_its_end_also_where_slurm_does_not_tell(site: Site, told: bool) -> None:
    if not told:  # Slurm before 23.02
        site.change(hpc={"prologue": "unset SLURM_JOB_END_TIME"})
    pilot = site.start_job("thing", 1)
    shown = site.cluster.show(pilot["id"])["EndTime"]
    end = datetime.fromisoformat(shown).replace(tzinfo=timezone.utc).timestamp()
    assert abs(site.runner(pilot["comment"])["end_of_walltime"] - end) < (1 if told else 5)
    assert time.time() < end
    assert site.until("thing")["thing"]["status"] == "ok"
