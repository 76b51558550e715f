"""Many jobs while things die at random: each is answered, once, and as undisturbed."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path

import pytest
from cluster.cluster import Cluster
from cluster.service import Site
from soak import checker
from soak import soak as soaking
from soak.slurm import there

pytestmark = pytest.mark.timeout(900)

FULL = "HPC_BATCH_FULL" in os.environ


class Vandal(threading.Thread):
    """Cancels a pilot now and then, and keeps the largest number of pilots ever seen alive."""

    def __init__(self, site: Site, every_s: float) -> None:
        super().__init__(daemon=True)
        self.site, self.every_s = site, every_s
        self.cancelled = self.most = 0
        self.over = threading.Event()

    def run(self) -> None:
        choice = random.Random(7)
        while not self.over.wait(self.every_s):
            alive = [
                job
                for job in self.site.cluster.queue(self.site.user)
                if job["state"] in ("PENDING", "RUNNING")
            ]
            self.most = max(self.most, len(alive))
            if alive and choice.random() < 0.5:
                self.site.cluster.scancel(choice.choice(alive)["id"])
                self.cancelled += 1


@pytest.mark.parametrize("count", [pytest.param(200, marks=pytest.mark.slow)] if FULL else [40])
def test_jobs_survive_pilots_that_are_cancelled_at_random(site: Site, count: int) -> None:
    site.change(pilot={"max": 2, "linger": 5})
    site.template("work", "#!/bin/bash\nsleep 0.3; echo $HPC_BATCH_JOB_ID > <<target>>\n")
    names = [f"job{number}" for number in range(count)]
    for name in names:
        site.drop(name, "work", output_map={"target": str(site.out / name)})
    vandal = Vandal(site, 1.5)
    vandal.start()
    try:
        answers = site.until(*names, timeout=count * 3 + 120)
    finally:
        vandal.over.set()
        vandal.join()
    assert vandal.cancelled > 2 and vandal.most <= 2
    assert {answer["status"] for answer in answers.values()} == {"ok"}
    for name, answer in answers.items():
        assert (site.out / name).read_text() == answer["id"] + "\n"
    history = (site.state / "history.jsonl").read_text().splitlines()
    assert len(history) == count


@pytest.mark.parametrize("count", [pytest.param(400, marks=pytest.mark.slow)] if FULL else [40])
def test_jobs_survive_the_death_of_whatever_serves_them(
    cluster: Cluster, tmp_path: Path, count: int
) -> None:
    """Submitters, sessions, sshd's children, runners, jobs, batch jobs and Slurm's daemons."""
    settings = soaking.Settings(
        jobs=count, hosts=2, pilots=4, window=count // 4, every_s=1.0, deeds=count // 3
    )
    with there(cluster, tmp_path, settings) as site:
        result = soaking.run(tmp_path, settings, site, print)
    assert checker.check(tmp_path) == {}
    assert sum(result.deeds.values()) > 0
