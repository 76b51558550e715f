"""An older Slurm, Debian bookworm's: before 23.02, so pilots are not told when they end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime, timezone

import pytest
from cluster import recipe
from cluster.cluster import Cluster, bring_up
from cluster.recipe import Missing
from cluster.service import Site

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def whole_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster with the older Slurm, for all tests here; `site` is before it."""
    folder = tmp_path_factory.mktemp("older")
    try:
        made = bring_up(folder, tied=True, made_of=recipe.OLDER_SLURM)
    except Missing as why:
        pytest.skip(str(why))
    try:
        yield made
    finally:
        made.host.stop()


def end_of(site: Site, native_id: str) -> float:
    """Return when Slurm will end a job, in Unix time."""
    shown = site.cluster.show(native_id)["EndTime"]
    return datetime.fromisoformat(shown).replace(tzinfo=timezone.utc).timestamp()


def test_a_job_goes_through_an_older_slurm_and_back(site: Site) -> None:
    assert site.cluster.run(site.user, "sbatch --version").startswith("slurm-wlm 22.05.")
    target = site.drop_copy("thing", "hello")
    answer = site.until("thing")["thing"]
    assert (answer["status"], answer["rc"], target.read_text()) == ("ok", 0, "hello")
    (pilot,) = site.pilots_listed()
    assert (answer["node"], answer["pilot"]["native_id"]) == (pilot["node"], pilot["id"])


def test_twenty_jobs_cost_an_older_slurm_one_sbatch(site: Site) -> None:
    names = [f"job{number}" for number in range(20)]
    for name in names:
        site.drop_copy(name)
    answers = site.until(*names)
    assert {a["status"] for a in answers.values()} == {"ok"}
    assert len(site.pilots_listed()) == 1


def test_a_pilot_that_an_older_slurm_cancels_hands_its_job_back(site: Site) -> None:
    pilot = site.start_job("thing", 3)
    site.cluster.scancel(pilot["id"])
    site.wait(lambda: "release" in site.log(pilot["comment"]), "it hands the ticket back")
    assert [t.name.split(".")[1] for t in site.workspace.glob("ready/*")] == ["a1c0"]
    answer = site.until("thing")["thing"]
    assert (answer["status"], answer["attempts"]) == ("ok", 2)


def test_the_runner_counts_what_its_prologue_took(site: Site) -> None:
    code = "env | grep -c SLURM_JOB_END_TIME; sleep 2"
    site.change(hpc={"prologue": "sleep 4"})
    site.drop("thing", "shell", args={"code": code})
    site.sweep()
    site.wait(lambda: list(site.workspace.glob("jobs/*/a1/job.sh")), "the job starts")
    (pilot,) = site.pilots_listed()
    end = site.runner(pilot["comment"])["end_of_walltime"]
    assert abs(end - end_of(site, pilot["id"])) < 3
    assert site.until("thing")["thing"]["stdout"] == "0\n"


def test_a_job_is_stopped_at_an_end_that_only_the_script_tells(site: Site) -> None:
    sooner = "export HPC_BATCH_END_TIME=$((HPC_BATCH_END_TIME - 40))"
    site.change(hpc={"walltime": "1m", "prologue": sooner})
    pilot = site.start_job("long", 300)
    end = site.runner(pilot["comment"])["end_of_walltime"]
    assert abs(end_of(site, pilot["id"]) - 40 - end) < 3
    answer = site.until("long", timeout=120)["long"]
    assert (answer["status"], answer["reason"], answer["attempts"]) == ("error", "time_limit", 1)


@pytest.mark.skipif("HPC_BATCH_FULL" not in os.environ, reason="takes minutes")
def test_a_job_that_slurm_stops_unexpectedly_is_done_by_the_next_pilot(site: Site) -> None:
    pilot = site.start_job("thing", 70)
    site.cluster.run("root", f"scontrol update jobid={pilot['id']} timelimit=1")
    site.wait(lambda: "release" in site.log(pilot["comment"]), "its end", timeout=120)
    answer = site.until("thing")["thing"]
    assert (answer["status"], answer["attempts"]) == ("ok", 2)
    ended = next(one for one in site.pilots_listed() if one["id"] == pilot["id"])
    assert (ended["state"], ended["reason"]) == ("TIMEOUT", "TimeLimit")


def test_an_older_controller_that_is_away_for_a_while(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.start_job("first", 2)
    site.cluster.stop_slurmctld()
    site.wait(lambda: list(site.workspace.glob("done/*/*")), "the first job ends")
    site.drop_copy("second")
    site.sweep()
    site.cluster.start_slurmctld()
    answers = site.until("first", "second")
    assert [(a["status"], a["attempts"]) for a in answers.values()] == [("ok", 1)] * 2
    said = capsys.readouterr().err
    assert said.count("Unable to contact slurm controller") <= 1


def test_an_older_slurms_refusal_is_told_once(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.change(hpc={"partition": "nowhere"})
    site.drop_copy("thing")
    for _ in range(3):
        assert site.sweep() == 0
    words = "Invalid partition name specified"
    assert capsys.readouterr().err.count(words) == 1
    (job,) = site.status()["jobs"]
    assert words in job["message"]
    assert not site.slots_held()
