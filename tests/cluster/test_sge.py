"""Grid Engine's dialect against a real one: Debian's, in a host of its own."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import recipe
from cluster.cluster import Cluster
from cluster.host import start
from cluster.recipe import USERS, Missing
from cluster.service import Site

pytestmark = pytest.mark.timeout(900)

NUMBERS = itertools.count(1)


class GridEngine(Cluster):
    """A host with Grid Engine: one node, one queue with two slots."""

    def queue(self, user: str = USERS[0]) -> list[dict[str, str]]:
        """Return the user's jobs as qstat lists them."""
        text = self.run("root", f"qstat -xml -u {user}")
        keys = {"id": "JB_job_number", "name": "JB_name", "state": "state"}
        found = []
        for block in re.findall("(?s)<job_list.*?</job_list>", text):
            one = {k: re.search(f"<{tag}>(.*?)<", block) for k, tag in keys.items()}
            found.append({k: match.group(1) for k, match in one.items() if match})
        return [{**job, "comment": job["name"].rpartition("-")[2]} for job in found]

    def restore(self) -> None:
        """End every job, open the queue."""
        self.run("root", "qmod -e all.q", check=False)
        self.run("root", "qdel -f -u '*'", check=False)
        self._wait(lambda: not any(self.queue(user) for user in USERS), "no job is left")
        for user in USERS:
            self.run("root", f"pkill -KILL -u {user}", check=False)


@pytest.fixture(scope="module")
def grid_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GridEngine]:
    try:
        host = start(tied=True, made_of=recipe.GRID_ENGINE)
    except Missing as why:
        pytest.skip(str(why))
    try:
        made = GridEngine(host, tmp_path_factory.mktemp("grid_engine"))
        made.furnish()
        yield made
    finally:
        host.stop()


@pytest.fixture
def sge(grid_engine: GridEngine, tmp_path: Path) -> Iterator[Site]:
    """A service host before Grid Engine."""
    site = Site(tmp_path, grid_engine, USERS[0], f"workspace{next(NUMBERS)}")
    site.change(hpc={"scheduler": "sge", "options": None})
    yield site
    grid_engine.restore()


def test_a_job_goes_through_grid_engine_and_back(sge: Site) -> None:
    target = sge.drop_copy("thing", "hello")
    answer = sge.until("thing")["thing"]
    assert (answer["status"], target.read_text()) == ("ok", "hello")
    assert answer["pilot"]["native_id"].isdigit()


def test_jobs_ride_along_with_one_pilot(sge: Site) -> None:
    names = [f"job{number}" for number in range(10)]
    for name in names:
        sge.drop_copy(name)
    answers = sge.until(*names)
    assert {a["status"] for a in answers.values()} == {"ok"}
    assert len({a["pilot"]["id"] for a in answers.values()}) == 1


def test_a_queued_pilot_is_listed_with_its_letters(sge: Site) -> None:
    sge.cluster.run("root", "qmod -d all.q")
    sge.drop_copy("thing")
    sge.sweep()
    sge.sweep()
    (one,) = sge.status()["pilots"]
    assert (one["state"], one["reason"]) == ("queued", "qw")
    sge.cluster.run("root", "qmod -e all.q")
    assert sge.until("thing")["thing"]["status"] == "ok"


def test_a_pilot_knows_its_id_and_its_end_and_grid_engine_its_limits(sge: Site) -> None:
    sge.template("wait", "#!/bin/bash\nsleep 3\necho $JOB_ID $HPC_BATCH_END_TIME > <<target>>\n")
    sge.drop("thing", "wait", output_map={"target": str(sge.out / "told")})
    sge.sweep()
    sge.wait(lambda: list(sge.workspace.glob("jobs/*/a1/job.sh")), "the job starts")
    (pilot,) = sge.pilots_listed()
    shown = sge.cluster.run("root", f"qstat -j {pilot['id']}")
    for line in ("h_rt=600", "s_rt=510", "notify:                     TRUE"):
        assert line in shown
    assert sge.until("thing")["thing"]["status"] == "ok"
    runner = sge.runner(pilot["comment"])
    told = (sge.out / "told").read_text().split()
    assert told == [pilot["id"], str(int(runner["end_of_walltime"]))]
    assert runner["native_id"] == pilot["id"]


def test_the_soft_limit_warns_the_runner(sge: Site) -> None:
    sge.change(hpc={"walltime": "100s"}, pilot={"linger": 90})
    sge.drop_copy("thing")
    sge.until("thing")
    (log,) = sge.workspace.glob("pilots/*/log")
    sge.wait(lambda: "warned by the batch system" in log.read_text(), "the warning", 60)
    sge.wait(lambda: not sge.pilots_listed(), "the pilot ends", 30)


def test_a_pilot_that_qdel_ends_hands_its_job_back(sge: Site) -> None:
    sge.template("once", '#!/bin/bash\n[ "$HPC_BATCH_ATTEMPT" = 2 ] || exec sleep 60\n')
    sge.drop("thing", "once")
    sge.sweep()
    sge.wait(lambda: list(sge.workspace.glob("jobs/*/a1/job.sh")), "the job starts")
    (pilot,) = sge.pilots_listed()
    sge.cluster.run(sge.user, f"qdel {pilot['id']}")
    sge.wait(lambda: list(sge.workspace.glob("ready/*.a1c0")), "the job is handed back", 30)
    answer = sge.until("thing")["thing"]
    assert (answer["status"], answer["attempts"]) == ("ok", 2)


def test_a_refusal_is_shown_in_grid_engines_words(sge: Site) -> None:
    sge.change(hpc={"partition": "nope.q"})
    sge.drop_copy("thing")
    sge.sweep()
    (trouble,) = sge.status()["trouble"]
    assert 'unknown queue "nope.q"' in trouble["message"]


def test_a_dead_qmaster_is_no_empty_list(sge: Site) -> None:
    sge.template("wait", "#!/bin/bash\nsleep 5\n")
    sge.drop("thing", "wait")
    sge.sweep()
    sge.wait(lambda: sge.running(), "the job runs")
    sge.cluster.run("root", "kill -9 $(cat /var/spool/gridengine/qmaster/qmaster.pid)")
    for _ in range(3):
        sge.sweep()
    (one,) = sge.status()["pilots"]
    assert one["state"] == "unknown"
    sge.cluster.run("root", "SGE_ROOT=/var/lib/gridengine sge_qmaster")
    answer = sge.until("thing")["thing"]
    assert (answer["status"], answer["attempts"]) == ("ok", 1)
