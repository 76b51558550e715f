"""The runner against its peers: what a job costs beside the job itself.

All contenders run the same scripts on the same disk in the same run. Ours is timed from the start
of the pilot's process to its end: Python's start, its inspection of the node and every result made
durable are in it. `xargs` keeps nothing. HyperQueue (its LocalCluster, one job with as many tasks,
its stream files as by default, no journal, nothing synced) is told twice: without its start-up,
from the submission to the last stream file's last change; and as its user waits for it, from the
start of Python to the return of `wait_for_jobs`, which looks once a second.
"""

from __future__ import annotations

import importlib.util
import os
import resource
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from bench.table import Missing, Row, absolute, alternate, ratio, rounds, scratch
from workshop import SESSION, Workshop

TITLE = "The runner"

SCRIPT = "#!/bin/sh\necho done\n"
"""A trivial job."""


class Cost(NamedTuple):
    """What one contender took."""

    seconds: float
    """From its start to its end."""
    processor_s: float
    """Processor time of all its processes, the jobs included."""


def rows(quick: bool) -> list[Row]:
    """Compare."""
    count, sleepers = (400, 20) if quick else (2000, 100)
    with scratch() as folder:
        scripts = _scripts(folder / "scripts", count)
        found = [_against_xargs(folder, scripts, rounds(quick, 5))]
        found += _against_hyperqueue(folder, scripts, rounds(quick, 5))
        sleeping = ["#!/bin/sh\nsleep 1\n"] * sleepers
        took = [_ours(folder / "sleepers", sleeping, 2).seconds for _ in range(1 if quick else 2)]
        ideal = [sleepers / 2] * len(took)
        found.append(ratio(f"{sleepers} jobs of 1 s, 2 slots", "ideal", took, ideal, at_most=1.02))
    return found


def _against_xargs(folder: Path, scripts: list[Path], times: int) -> Row:
    count = len(scripts)
    took = alternate(
        {
            "ours": lambda: _ours(folder / "one", [SCRIPT] * count, 1).seconds,
            "xargs": lambda: _xargs(scripts),
        },
        times,
    )
    return absolute(
        f"{count:,} trivial jobs, 1 slot: per job over `xargs -P1 -n1 sh`",
        [(a - b) / count * 1e3 for a, b in zip(took["ours"], took["xargs"])],
        "ms",
        at_most=4.0,
        note=f"in all {min(took['ours']):.3g} s at best, xargs {min(took['xargs']):.3g} s",
    )


def _against_hyperqueue(folder: Path, scripts: list[Path], times: int) -> list[Row]:
    if importlib.util.find_spec("hyperqueue") is None:
        raise Missing("hyperqueue is not installed (pip install hyperqueue)")
    count = len(scripts)
    net_s: list[float] = []
    costs: dict[str, list[Cost]] = {"ours": [], "theirs": []}

    def ours() -> None:
        costs["ours"].append(_ours(folder / "two", [SCRIPT] * count, 2))

    def theirs() -> None:
        net, cost = _hyperqueue(folder / "hyperqueue", scripts)
        net_s.append(net)
        costs["theirs"].append(cost)

    alternate({"ours": ours, "theirs": theirs}, times)
    seconds = {name: [cost.seconds for cost in found] for name, found in costs.items()}
    each_ms = {
        name: [cost.processor_s / count * 1e3 for cost in found] for name, found in costs.items()
    }
    what = f"{count:,} trivial jobs, 2 slots"
    peer = "HyperQueue's LocalCluster, 2 cores"
    return [
        ratio(f"{what}", f"{peer}, without its start-up", seconds["ours"], net_s, at_most=1.0),
        ratio(f"{what}", f"{peer}, until its client returns", seconds["ours"], seconds["theirs"]),
        ratio(
            f"{what}: processor time per job", peer, each_ms["ours"], each_ms["theirs"], unit="ms"
        ),
    ]


def _scripts(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{number}.sh" for number in range(count)]
    for path in paths:
        path.write_text(SCRIPT)
        path.chmod(0o755)
    return paths


def _ours(folder: Path, scripts: list[str], slots: int) -> Cost:
    """Publish jobs, then time one pilot that drains them."""
    shop = Workshop(folder)
    try:
        jobs = [shop.stage(script) for script in scripts]
        shop.spool.publish_all([(job, SESSION) for job in jobs])
        os.sync()
        options = ["--linger", "0", "--slots", str(slots), "--beat", "30"]
        begin, before_s = time.perf_counter(), _processor_s()
        code = shop.start(secrets.token_hex(8), *options).wait()
        cost = Cost(time.perf_counter() - begin, _processor_s() - before_s)
        if code != 0 or list(shop.done().values()) != ["ok"] * len(jobs):
            raise RuntimeError(f"the pilot ended with {code} and {len(shop.done())} jobs done")
        return cost
    finally:
        shop.close()
        shutil.rmtree(folder)


def _xargs(scripts: list[Path]) -> float:
    text = "".join(f"{path}\n" for path in scripts).encode()
    os.sync()
    begin = time.perf_counter()
    command = ["xargs", "-P1", "-n1", "sh"]
    subprocess.run(command, input=text, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begin


HYPERQUEUE = """
import sys, time
from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig
folder, *scripts = sys.argv[1:]
with LocalCluster(folder + "/server") as cluster:
    cluster.start_worker(WorkerConfig(cores=2))
    client = cluster.client()
    job = Job(default_workdir=folder + "/out")
    for script in scripts:
        job.program([script])
    print(time.time(), file=sys.stderr)
    client.wait_for_jobs([client.submit(job)])
"""


def _hyperqueue(folder: Path, scripts: list[Path]) -> tuple[float, Cost]:
    """Return the seconds from submission to the last task's end, and the cost of the whole."""
    folder.mkdir()
    os.sync()
    begin, before_s = time.perf_counter(), _processor_s()
    argv = [sys.executable, "-c", HYPERQUEUE, str(folder), *map(str, scripts)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    cost = Cost(time.perf_counter() - begin, _processor_s() - before_s)
    streams = list((folder / "out").iterdir())
    if len(streams) != 2 * len(scripts):
        raise RuntimeError(f"HyperQueue left {len(streams)} files of {len(scripts)} tasks")
    net = max(path.stat().st_mtime for path in streams) - float(done.stderr.split()[0])
    shutil.rmtree(folder)
    return net, cost


def _processor_s() -> float:
    """Return the processor time of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
