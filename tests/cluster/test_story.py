"""The main job on a real cluster: SSH, Slurm, a container image, and nothing else touched."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import recipe
from cluster.service import Site

pytestmark = pytest.mark.timeout(900)  # the first run of a machine builds the cluster


def test_a_dropped_job_comes_back_from_its_container(site: Site) -> None:
    site.drop_count("thing", "hello\n")
    answer = site.until("thing")["thing"]
    assert (answer["status"], answer["rc"], answer["reason"]) == ("ok", 0, "completed")
    assert answer["stdout"] == "counted in my_container.sif\n"
    assert (site.out / "thing.txt").read_text() == "level 6, 6 bytes\n"
    counted = json.loads((site.out / "thing.json").read_text())
    assert counted["sha256"] == hashlib.sha256(b"hello\n").hexdigest()
    (pilot,) = site.pilots_listed()
    assert answer["node"] == pilot["node"] and pilot["node"] in ("n1", "n2")
    assert answer["pilot"]["native_id"] == pilot["id"]


def test_a_job_that_fails_in_its_container_brings_its_code_and_words_home(site: Site) -> None:
    site.drop_count("thing", "fail\n")
    answer = site.until("thing")["thing"]
    assert (answer["status"], answer["rc"], answer["reason"]) == ("error", 3, "exit_code")
    assert "my_container: told to fail\n" in answer["stderr"]
    assert not (site.out / "thing.txt").exists()


def test_a_missing_image_is_the_jobs_error_in_apptainers_own_words(site: Site) -> None:
    site.change(hpc_env={"containers": f"{site.home}/nowhere"})
    site.drop_count("thing")
    answer = site.until("thing")["thing"]
    assert (answer["status"], answer["rc"], answer["reason"]) == ("error", 255, "exit_code")
    assert f"could not open image {site.home}/nowhere/my_container.sif" in answer["stderr"]


def test_jobs_dropped_while_the_pilot_runs_ride_along(site: Site) -> None:
    site.change(pilot={"linger": 60})
    site.drop_count("first")
    site.sweep()
    site.wait(lambda: list(site.workspace.glob("done/*/*")), "the first job ends")
    site.drop_count("second")
    site.drop_count("third", "sleep 2\n")
    answers = site.until("first", "second", "third")
    assert {a["status"] for a in answers.values()} == {"ok"}
    assert len({a["pilot"]["id"] for a in answers.values()}) == 1
    assert len(site.pilots_listed()) == 1


def test_fifty_jobs_cost_one_sbatch(site: Site) -> None:
    names = [f"job{number}" for number in range(50)]
    for name in names:
        site.drop_count(name, f"{name}\n")
    site.change(pilot={"slots": 4})
    answers = site.until(*names, timeout=120)
    assert {a["status"] for a in answers.values()} == {"ok"}
    assert len(site.pilots_listed()) == 1


def test_jobs_travel_with_openssh_too(site: Site) -> None:
    site.change(remote=site.cluster.remote(site.user, "openssh"))
    site.drop_count("thing")
    assert site.until("thing")["thing"]["status"] == "ok"


@contextlib.contextmanager
def cron(table: Path) -> Iterator[None]:
    """Run a cron daemon with this crontab."""
    words = [*recipe.ALONE, str(recipe.HERE / "cron.sh"), str(table)]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.skipif(not shutil.which("cron", path="/usr/sbin"), reason="cron is not installed")
@pytest.mark.parametrize(
    "linger",
    [
        30,
        pytest.param(
            0, marks=pytest.mark.skipif("HPC_BATCH_FULL" not in os.environ, reason="takes minutes")
        ),
    ],
)
def test_cron_alone_sees_a_job_through(site: Site, checkout: Path, linger: int) -> None:
    site.change(cronjob={"linger": linger})
    site.drop_count("thing")
    table, log = site.root / "crontab", site.root / "cron.log"
    table.write_text(f"* * * * * {checkout}/tools/hpc_submitter {site.ini} >> {log} 2>&1\n")
    with cron(table):
        site.wait(lambda: site.finished("thing").exists(), "cron does it", timeout=200)
    assert site.answer("thing")["status"] == "ok"
    assert log.read_text() == ""
