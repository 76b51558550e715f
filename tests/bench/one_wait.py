"""What the tool is for: many short jobs on a cluster whose queue is long.

A real Slurm (tests/cluster, two nodes of two cores) holds every batch job in the queue for a while,
whoever submits it. From the first submission, or drop, to the last result. The others' jobs and
data lie on the cluster already; ours are dropped on the service host, travel over SSH and come
back as answers and outputs, by passes that linger as cron would start them.

Each job sleeps, so the cores of this machine do not matter; the number of places that a contender
has at a time does, and is told.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.table import Missing, Row, absolute, scratch
from cluster import recipe
from cluster.cluster import CHECKOUT, Cluster, bring_up
from cluster.recipe import USERS
from cluster.service import Site

TITLE = "One wait: short jobs on a real Slurm with a queue"

USER = USERS[0]
JOB_S = 2
CONSIDERED_S = 0.05
"""Results are looked for this often."""

PATIENCE_S = 600
LIMIT = 20
"""So many batch jobs of one user may be submitted at a time, in the row that says so."""

PARALLEL = """\
#!/bin/bash
#SBATCH --nodes=1 --cpus-per-task={places}
seq {count} | perl ~/parallel --will-cite -j{places} 'sleep {job_s}; echo done > {folder}/{{}}'
"""

HYPERQUEUE = """\
#!/usr/bin/env python3
#SBATCH --nodes=1 --cpus-per-task={places}
import sys
sys.path.insert(0, {packages!r})
from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig
with LocalCluster() as cluster:
    cluster.start_worker(WorkerConfig(cores={places}))
    client = cluster.client()
    job = Job(default_workdir={folder!r})
    for n in range(1, {count} + 1):
        job.program(["/bin/sh", "-c", f"sleep {job_s}; echo done > {folder}/{{n}}"])
    client.wait_for_jobs([client.submit(job)])
"""


class Place:
    """The cluster, held, and what contenders left on it."""

    def __init__(self, cluster: Cluster, root: Path, hold_s: int) -> None:
        self.cluster, self.root, self.hold_s = cluster, root, hold_s
        self._numbers = itertools.count(1)

    def folder(self) -> str:
        """Make a folder for results, as the cluster sees it."""
        inside = f"/home/{USER}/results{next(self._numbers)}"
        self.cluster.run(USER, f"mkdir {inside}")
        return inside

    def until(self, count: int, found: Callable[[], int]) -> None:
        """Wait until there are so many results."""
        end = time.monotonic() + PATIENCE_S
        while found() < count:
            if time.monotonic() > end:
                raise RuntimeError(f"{found()} of {count} results\n{self.cluster.queue(USER)}")
            time.sleep(CONSIDERED_S)

    def results(self, inside: str) -> int:
        """Count the results in a folder."""
        return sum(file.suffix == "" for file in self.cluster.path(inside).iterdir())

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold every batch job in the queue; leave an idle cluster behind."""
        self.cluster.knob("queue_wait", self.hold_s)
        try:
            yield
        finally:
            self.cluster.restore()

    # ---- contenders --------------------------------------------------------------------------

    def one_sbatch_each(self, count: int, options: str = "", at_a_time: int = 0) -> float:
        """Submit each job by itself; with `at_a_time`, as many as a limit of the site lets."""
        inside = self.folder()
        submit = f"sbatch --quiet {options} -o {inside}/$n.out --wrap "
        submit += f"'sleep {JOB_S}; echo done > {inside}/'$n"
        with self.held():
            begin = time.monotonic()
            first = min(count, at_a_time or count)
            self.cluster.run(USER, f"for n in $(seq {first}); do {submit}; done")
            for number in range(first + 1, count + 1):
                self.until(number - first, lambda: self.results(inside))
                self.cluster.run(USER, f"n={number}; {submit}")
            self.until(count, lambda: self.results(inside))
            return time.monotonic() - begin

    def one_allocation(self, script: str, count: int, **more: Any) -> float:
        """Submit one batch job that does them all."""
        inside = self.folder()
        text = script.format(count=count, folder=inside, job_s=JOB_S, places=2, **more)
        with self.held():
            begin = time.monotonic()
            words = ["sbatch", "--quiet", "-o", f"{inside}/all.out"]
            self.cluster.host.run(USER, *words, stdin=text)
            self.until(count, lambda: self.results(inside))
            return time.monotonic() - begin

    def ours(self, count: int, pilots: int = 1, *, one_by_one: bool = False) -> tuple[float, int]:
        """Drop the jobs; return the time to the last answer, and how often a pilot queued."""
        name = f"w{next(self._numbers)}"
        site = Site(self.root / name, self.cluster, USER, name)
        site.change(
            remote=self.cluster.remote(USER, "openssh"),
            hpc={"options": "--cpus-per-task=2 --mem-per-cpu=100"},
            pilot={"slots": 2, "max": pilots, "linger": 60},
            cronjob={"linger": 55},
        )

        def answers() -> int:
            return len(list(site.dropbox.glob("*.finished")))

        with self.held(), passes(site):
            begin = time.monotonic()
            for number in range(count):
                site.drop_sleep(f"job{number}", JOB_S)
                if one_by_one:
                    self.until(number + 1, answers)
            self.until(count, answers)
            elapsed = time.monotonic() - begin
            waits = len(site.pilots_listed())
            bad = [n for n in range(count) if site.answer(f"job{n}")["status"] != "ok"]
            if bad:
                raise RuntimeError(f"{bad} failed\n{site.picture()}")
        return elapsed, waits


@contextlib.contextmanager
def passes(site: Site) -> Iterator[None]:
    """Start one pass after the other, as cron does each minute when they linger."""
    over = threading.Event()
    program = [sys.executable, str(CHECKOUT / "tools" / "hpc_submitter"), str(site.ini)]
    running: list[subprocess.Popen[bytes]] = []

    def cron() -> None:
        while not over.is_set():
            running[:] = [subprocess.Popen(program, stdin=subprocess.DEVNULL)]
            running[0].wait()
            over.wait(1)

    thread = threading.Thread(target=cron)
    thread.start()
    try:
        yield
    finally:
        over.set()
        for process in running:
            process.terminate()
        thread.join()


def rows(quick: bool) -> list[Row]:
    """Let contenders do the same jobs, one after the other."""
    count, hold_s, few = (20, 10, 2) if quick else (100, 30, 5)
    try:
        recipe.check()
    except recipe.Missing as why:
        raise Missing(str(why)) from why
    with scratch() as root:
        cluster = bring_up(root / "cluster", tied=True)
        try:
            return compare(Place(cluster, root, hold_s), count, few)
        except recipe.Missing as why:
            raise Missing(str(why)) from why
        finally:
            cluster.host.stop()


def compare(place: Place, count: int, few: int) -> list[Row]:
    """Return the rows of all contenders."""
    what = f"{count} jobs of {JOB_S} s, each batch job held {place.hold_s} s"
    one, waits = place.ours(count)
    two, more_waits = place.ours(count, pilots=2)
    found = [absolute(f"{what}: waits in the queue of hpc_batch", [waits], "waits", at_most=1)]

    def row(who: str, theirs: float, ours: float = one, own: str = "1 pilot, 2 places") -> None:
        print(f"{who}: {theirs:.0f} s; hpc_batch: {ours:.0f} s", file=sys.stderr, flush=True)
        told = f"{ours:.0f} s ({own})"
        found.append(Row(what, who, told, f"{theirs:.0f} s", ours / theirs))

    row(
        f"one sbatch per job, {count} waits side by side, on the same 2 places",
        place.one_sbatch_each(count, "--nodelist=n1"),
    )
    own = f"{more_waits} pilots side by side, 4 places"
    row(f"the same on 4 places, {count} waits", place.one_sbatch_each(count), two, own)
    row(
        f"one sbatch per job, at most {LIMIT} submitted at a time (a site's limit), 4 places",
        place.one_sbatch_each(count, at_a_time=LIMIT),
        two,
        own,
    )
    if program := shutil.which("parallel"):
        shutil.copy(program, place.cluster.path(f"/home/{USER}/parallel"))
        row(
            "GNU parallel in one allocation, 1 wait, 2 places",
            place.one_allocation(PARALLEL, count),
        )
    if packages := hyperqueue(place.cluster):
        took = place.one_allocation(HYPERQUEUE, count, packages=packages)
        row("HyperQueue in one allocation, 1 wait, 2 places", took)
    ours, waits = place.ours(few, one_by_one=True)
    theirs = sum(place.one_sbatch_each(1) for _ in range(few))
    what = f"{few} jobs of {JOB_S} s, each dropped when the one before is done"
    told = f"{ours:.0f} s ({waits} wait)"
    found.append(
        Row(what, f"one sbatch per job, {few} waits", told, f"{theirs:.0f} s", ours / theirs)
    )
    return found


def hyperqueue(cluster: Cluster) -> str | None:
    """Copy HyperQueue to the cluster; None where this environment has none or it does not run."""
    import importlib.util

    found = importlib.util.find_spec("hyperqueue")
    if found is None or found.origin is None:
        return None
    inside = f"/home/{USER}/packages"
    packages = Path(found.origin).parent.parent
    for name in ("hyperqueue", "cloudpickle", "tqdm"):
        if (packages / name).exists():
            shutil.copytree(packages / name, cluster.path(inside) / name)
    # Its worker looks its own node's name up.
    cluster.run("root", "echo 127.0.0.1 n1 n2 >> /etc/hosts")
    said = cluster.run(
        USER, f"PYTHONPATH={inside} python3 -c 'import hyperqueue; print(1)'", check=False
    )
    return inside if said.strip() == "1" else None
