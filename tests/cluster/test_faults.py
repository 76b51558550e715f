"""Faults on a real cluster: whatever dies, each job is answered once, and as undisturbed."""

from __future__ import annotations

import os
import signal

import pytest
from cluster.service import Site

pytestmark = pytest.mark.timeout(900)


def processes(site: Site, words: str) -> list[int]:
    """Return the cluster's processes of this site's user whose command line begins so."""
    text = site.cluster.run("root", f"pgrep -u {site.user} -f '^{words}'", check=False)
    return [int(pid) for pid in text.split()]


# ---- pilots that are cancelled ---------------------------------------------------------------


def test_a_pilot_cancelled_while_it_waits_costs_the_job_nothing(site: Site) -> None:
    site.cluster.knob("queue_wait", 60)
    site.drop_copy("thing")
    site.sweep()
    (pilot,) = site.pilots_listed()
    assert pilot["state"] == "PENDING"
    site.cluster.knob("queue_wait", None)
    site.cluster.scancel(pilot["id"])
    answer = site.until("thing")["thing"]
    assert (answer["status"], answer["attempts"]) == ("ok", 1)
    assert len(site.pilots_listed()) == 2


def test_a_pilot_cancelled_while_it_starts_costs_the_job_nothing(site: Site) -> None:
    site.change(hpc={"prologue": "echo prologue; sleep 3"})
    site.drop_copy("thing")
    site.sweep()
    site.wait(lambda: list(site.workspace.glob("pilots/*/log")), "the prologue")
    (pilot,) = site.pilots_listed()
    site.cluster.scancel(pilot["id"])
    answer = site.until("thing")["thing"]
    assert (answer["status"], answer["attempts"]) == ("ok", 1)


def test_a_pilot_cancelled_while_it_runs_a_job_hands_it_back(site: Site) -> None:
    pilot = site.start_job("thing", 4)
    site.cluster.scancel(pilot["id"])
    site.wait(lambda: "release" in site.log(pilot["comment"]), "it hands the ticket back")
    assert [t.name.split(".")[1] for t in site.workspace.glob("ready/*")] == ["a1c0"]
    answer = site.until("thing")["thing"]
    assert (answer["status"], answer["attempts"]) == ("ok", 2)


def test_a_job_that_ignores_its_end_is_taken_from_its_killed_pilot(site: Site) -> None:
    code = "trap '' TERM; if [ $HPC_BATCH_ATTEMPT = 1 ]; then sleep 300 & wait; wait; fi"
    site.drop("thing", "shell", args={"code": code})
    site.sweep()
    site.wait(lambda: list(site.workspace.glob("jobs/*/a1/job.sh")), "the job starts")
    (pilot,) = site.pilots_listed()
    site.cluster.scancel(pilot["id"])
    answer = site.until("thing")["thing"]
    assert (answer["status"], answer["attempts"]) == ("ok", 2)


# ---- processes that are killed ---------------------------------------------------------------


def test_a_killed_runner_takes_its_job_along_and_another_does_it(site: Site) -> None:
    pilot = site.start_job("thing", 3)
    pid = site.runner(pilot["comment"])["pid"]
    site.cluster.run("root", f"kill -9 {pid}")
    site.wait(lambda: not processes(site, "sleep 3"), "its job ends", timeout=5)
    answer = site.until("thing")["thing"]
    assert (answer["status"], answer["attempts"]) == ("ok", 2)
    assert len(site.pilots_listed()) == 2


def test_a_killed_job_is_its_own_error(site: Site) -> None:
    pilot = site.start_job("thing", 30)
    (script,) = processes(site, "/bin/bash .*/job.sh")
    site.cluster.run("root", f"kill -9 {script}")
    answer = site.until("thing")["thing"]
    assert (answer["status"], answer["reason"], answer["attempts"]) == ("error", "exit_code", 1)
    assert answer["rc"] == -9 or answer["rc"] == 137
    assert not processes(site, "sleep 30")
    assert len(site.pilots_listed()) == 1 and pilot["state"] == "RUNNING"


def test_a_node_daemon_that_comes_back_costs_nothing(site: Site) -> None:
    pilot = site.start_job("thing", 5)
    site.cluster.kill_slurmd(pilot["node"])
    site.cluster.start_slurmd(pilot["node"])
    answer = site.until("thing")["thing"]
    assert (answer["status"], answer["attempts"]) == ("ok", 1)
    assert len(site.pilots_listed()) == 1


def test_a_node_daemon_that_stays_away_costs_an_attempt(site: Site) -> None:
    code = "if [ $HPC_BATCH_ATTEMPT = 1 ]; then sleep 60; fi; echo $HPC_BATCH_ATTEMPT"
    site.drop("thing", "shell", args={"code": code})
    site.sweep()
    site.wait(lambda: list(site.workspace.glob("jobs/*/a1/job.sh")), "the job starts")
    (pilot,) = site.pilots_listed()
    site.cluster.kill_slurmd(pilot["node"])
    answer = site.until("thing", timeout=120)["thing"]
    # The first pilot goes on without Slurm, which believes that it is dead; it cannot answer.
    assert (answer["status"], answer["attempts"], answer["stdout"]) == ("ok", 2, "2\n")
    assert answer["node"] != pilot["node"]


def test_a_node_that_is_set_down_costs_an_attempt(site: Site) -> None:
    pilot = site.start_job("thing", 3)
    site.cluster.scontrol("update", f"nodename={pilot['node']}", "state=down", "reason=test")
    answer = site.until("thing")["thing"]
    assert (answer["status"], answer["attempts"]) == ("ok", 2)


# ---- a controller that is away -----------------------------------------------------------------


def test_a_controller_that_is_away_before_the_submission(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.cluster.stop_slurmctld()
    site.drop_copy("thing")
    site.sweep()
    assert "Unable to contact slurm controller" in capsys.readouterr().err
    assert not site.slots_held()
    site.cluster.start_slurmctld()
    answer = site.until("thing")["thing"]
    assert (answer["status"], answer["attempts"]) == ("ok", 1)
    assert "over, since" in capsys.readouterr().err


def test_a_submission_whose_answer_is_lost_is_found_and_not_repeated(site: Site) -> None:
    site.cluster.stop_slurmctld(signal.SIGSTOP)
    site.drop_copy("thing")
    site.sweep()
    (info,) = site.status()["pilots"]
    assert info["native_id"] is None and "timed out" in info["reason"]
    site.cluster.stop_slurmctld(signal.SIGCONT)
    answer = site.until("thing")["thing"]
    assert (answer["status"], answer["attempts"]) == ("ok", 1)
    (pilot,) = site.pilots_listed()
    assert pilot["comment"] == info["pilot"]


def test_a_controller_that_answers_too_late_gets_one_submission(site: Site) -> None:
    site.cluster.knob("reply_delay", 5)
    site.drop_copy("thing")
    site.sweep()
    site.cluster.knob("reply_delay", None)
    assert site.until("thing")["thing"]["status"] == "ok"
    assert len(site.pilots_listed()) == 1


def test_a_controller_that_is_away_while_a_pilot_runs(site: Site) -> None:
    site.change(pilot={"linger": 60})
    site.start_job("first", 2)
    site.cluster.stop_slurmctld()
    answers = site.until("first")
    site.drop_copy("second")
    answers.update(site.until("second"))
    site.cluster.start_slurmctld()
    site.drop_copy("third")
    answers.update(site.until("third"))
    assert {a["status"] for a in answers.values()} == {"ok"}
    assert len({a["pilot"]["id"] for a in answers.values()}) == 1
    assert len(site.pilots_listed()) == 1


# ---- pilots that can never start ---------------------------------------------------------------

QOS = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
ACCOUNT = "Invalid account or account/partition combination specified"


def told(site: Site, words: str) -> None:
    """Check that the job says what it waits for, to programs and to its user."""
    (job,) = site.status()["jobs"]
    assert words in job["message"]
    assert words in (site.dropbox / "thing.job.submitted").read_text()


def test_a_partition_that_is_not_there_is_told_once(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.change(hpc={"partition": "nowhere"})
    site.drop_copy("thing")
    for _ in range(3):
        assert site.sweep() == 0
    assert capsys.readouterr().err.count("Invalid partition name specified") == 1
    told(site, "Invalid partition name specified")
    assert not site.slots_held()


@pytest.mark.parametrize("words", [ACCOUNT, QOS])
def test_a_refused_submission_is_told_once_and_ends_by_itself(
    site: Site, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    site.cluster.knob("refuse", words)
    site.drop_copy("thing")
    assert site.sweep() == 0
    assert capsys.readouterr().err.count(words) == 1
    told(site, words)
    site.cluster.knob("refuse", None)
    assert site.until("thing")["thing"]["status"] == "ok"
    assert capsys.readouterr().err.count(words) == 1  # it is over


def test_a_pilot_that_slurm_will_never_start_is_told_once(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.change(hpc={"partition": "short", "walltime": "20m"})
    site.drop_copy("thing")
    site.sweep()
    reason = "PartitionTimeLimit"
    site.wait(lambda: site.pilots_listed()[0]["reason"] == reason, "Slurm says so")
    for _ in range(3):
        assert site.sweep() == 0
    assert capsys.readouterr().err.count(reason) == 1
    told(site, reason)
    told(site, "look at [hpc] walltime")
    (pilot,) = site.pilots_listed()
    site.cluster.scancel(pilot["id"])
    site.change(hpc={"walltime": "5m"})
    assert site.until("thing")["thing"]["status"] == "ok"
    assert "over, since" in capsys.readouterr().err


# ---- the end of the walltime -------------------------------------------------------------------


def test_a_job_longer_than_a_walltime_is_answered_so(site: Site) -> None:
    site.change(hpc={"walltime": "1m"})
    site.drop_sleep("long", 300)
    answer = site.until("long", timeout=120)["long"]
    assert (answer["status"], answer["reason"], answer["attempts"]) == ("error", "time_limit", 1)


@pytest.mark.skipif("HPC_BATCH_FULL" not in os.environ, reason="takes minutes")
def test_a_job_caught_by_the_end_of_the_walltime_is_done_by_the_next_pilot(site: Site) -> None:
    site.change(hpc={"walltime": "1m"})
    site.drop_sleep("first", 12)
    site.sweep()
    site.drop_sleep("second", 30)
    answers = site.until("first", "second", timeout=240)
    assert {a["status"] for a in answers.values()} == {"ok"}
    assert answers["first"]["attempts"] == 1
    # Slurm looks every 30 s, and may have sent its warning before the second job was claimed.
    assert answers["second"]["attempts"] in (1, 2)
    assert answers["first"]["pilot"]["id"] != answers["second"]["pilot"]["id"]


# ---- a login node and a workspace in trouble ---------------------------------------------------


def test_a_login_node_that_refuses_connections_for_a_while(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.start_job("first", 1)
    site.cluster.stop_sshd()
    site.drop_copy("second")
    for _ in range(3):
        assert site.sweep() == 75
    assert site.status()["cluster"]["reachable"] is False
    assert capsys.readouterr().err == ""
    site.cluster.start_sshd()
    answers = site.until("first", "second")
    assert {a["status"] for a in answers.values()} == {"ok"}
    assert {a["attempts"] for a in answers.values()} == {1}


def test_a_full_workspace_makes_jobs_wait_and_loses_none(site: Site) -> None:
    small = f"{site.inside}.small"
    mount = f"mount -t tmpfs -o size=40m,mode=700,uid={site.user} tmpfs {small}"
    site.cluster.run("root", f"mkdir {small} && {mount}")
    site.change(hpc_env={"workspace": f"{small}/workspace"})
    site.workspace = site.cluster.path(f"{small}/workspace")
    big = site.root / "big"
    big.write_bytes(os.urandom(60 << 20))
    site.template("count", "#!/bin/bash\nwc -c < <<source>>\n")
    site.drop("big", "count", input_map={"source": str(big)})
    assert site.sweep() == 75
    (record,) = site.records()
    assert "space" in record["message"].lower()
    assert not site.finished("big").exists()
    site.cluster.run("root", f"mount -o remount,size=300m {small}")
    answer = site.until("big")["big"]
    assert (answer["status"], answer["stdout"].strip()) == ("ok", str(60 << 20))
