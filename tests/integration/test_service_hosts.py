"""Several service hosts on one workspace, and the upgrade of one side while jobs are in flight."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from workshop import Workshop, wait_until
from world import World

from hpc_cluster import PROTOCOL, VERSION, pilot, slots

CHECKOUT = Path(__file__).resolve().parents[2]

POLICY = {"scheduler": "local", "linger": 0, "python": sys.executable}


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[World, World]]:
    """Two service hosts, each with its dropbox and state, on one workspace."""
    pair = tuple(sharing(tmp_path, name) for name in ("north", "south"))
    try:
        yield pair[0], pair[1]
    finally:
        pair[0].end()


def sharing(root: Path, name: str, **keys: Any) -> World:
    made = World(root / name)
    made.workspace = root / "workspace"
    made.configure(**keys)
    return made


def until_answered(jobs: dict[World, list[str]], timeout: float = 120) -> None:
    end = time.monotonic() + timeout
    while any(host.records() for host in jobs) or not all(
        host.finished(name).exists() for host, names in jobs.items() for name in names
    ):
        for host in jobs:
            host.sweep()
        assert time.monotonic() < end, "\n".join(host.picture() for host in jobs)
        time.sleep(0.1)


# ---- two at a time -------------------------------------------------------------------------------


def test_answers_go_home_to_the_host_that_took_the_job(hosts: tuple[World, World]) -> None:
    names = [f"job{n}" for n in range(10)]
    for host in hosts:
        for name in names:
            host.drop_copy(name, f"{host.root.name} {name}")
    until_answered(dict.fromkeys(hosts, names))
    for host in hosts:
        assert all(host.answer(name)["status"] == "ok" for name in names)
        assert {(host.out / f"{n}.out").read_text() for n in names} == {
            f"{host.root.name} {n}" for n in names
        }
    instances = {host.status()["instance"] for host in hosts}
    assert len(instances) == 2
    assert {p.name for p in (hosts[0].workspace / "done").iterdir()} == instances


def test_an_idle_pilot_of_one_host_serves_the_others_jobs(hosts: tuple[World, World]) -> None:
    north, south = hosts
    north.configure(pilot={"linger": 60})
    north.drop_copy("one")
    north.until("one")
    south.drop_copy("two")
    answers = south.until("two")
    assert answers["two"]["pilot"]["id"] == north.answer("one")["pilot"]["id"]
    assert len(pilot.pilots(spool_of(north))) == 1


def spool_of(host: World) -> Any:
    return Workshop(host.workspace).spool


def test_a_host_with_many_jobs_does_not_starve_another(hosts: tuple[World, World]) -> None:
    north, south = hosts
    go = north.root / "go"
    north.drop("first", "shell", args={"code": f"while [ ! -e {go} ]; do sleep 0.05; done"})
    north.sweep()
    wait_until(lambda: len(list((north.workspace / "running").iterdir())) == 1)
    many, few = [f"many{n}" for n in range(30)], ["few0", "few1", "few2"]
    for host, names in ((north, many), (south, few)):
        for name in names:
            host.drop_copy(name)
        host.sweep()
    go.touch()
    until_answered({north: ["first", *many], south: few})
    [log] = north.workspace.glob("pilots/*/log")
    words = [line.split() for line in log.read_text().splitlines()]
    claimed = [word[2][:8] for word in words if word[1] == "claim"]
    assert len(claimed) == 34
    theirs = [n for n, instance in enumerate(claimed) if instance == south.status()["instance"]]
    assert len(theirs) == 3 and theirs[-1] <= 6, "they take turns"


def test_the_status_of_one_host_counts_its_own_jobs_only(hosts: tuple[World, World]) -> None:
    north, south = hosts
    north.drop("slow", "sleep", args={"seconds": "2"}, output_map={"target": str(north.out / "s")})
    north.sweep()
    south.drop_copy("one")
    south.sweep()
    assert sum(south.status()["counts"].values()) == 1
    assert [job["name"] for job in south.status()["jobs"]] == ["one.job"]
    until_answered({north: ["slow"], south: ["one"]})


# ---- never too many pilots -----------------------------------------------------------------------

KEEP = """
import json, sys
sys.path.insert(0, sys.argv[1])
from hpc_cluster import queuer
from hpc_cluster.spool import Spool
spool, policy = Spool.open(sys.argv[2]), json.loads(sys.argv[3])
count = 0
for _ in range(int(sys.argv[4])):
    count += len(queuer.keep(spool, policy)["submitted"])
print(count)
"""


def keepers(shop: Workshop, rounds: int, *policies: dict[str, Any]) -> list[subprocess.Popen[str]]:
    argv = [sys.executable, "-c", KEEP, str(CHECKOUT / "on_hpc"), shop.spool.workspace]
    return [
        subprocess.Popen(
            [*argv, json.dumps({**POLICY, **policy}), str(rounds)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for policy in policies
    ]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Workshop]:
    made = Workshop(tmp_path / "workspace")
    yield made
    made.close()


def most_pilots(shop: Workshop, processes: list[subprocess.Popen[str]]) -> int:
    """Return how many pilots of this workspace lived at a time while the processes ran."""
    most = 0
    while any(process.poll() is None for process in processes):
        living = set()  # by name: a job that a runner is just starting looks like that runner
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    words = Path("/proc", entry, "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if b"--pilot" in words and os.fsencode(shop.spool.workspace) in words:
                    living.add(words[words.index(b"--pilot") + 1])
        most = max(most, len(living))
        time.sleep(0.02)
    return most


def test_hosts_that_look_at_the_same_time_never_submit_more_than_there_are_slots(
    shop: Workshop,
) -> None:
    jobs = [shop.job("#!/bin/sh\nsleep 0.1\n") for _ in range(40)]
    processes = keepers(shop, 5, *[{"max": 2}] * 8)
    assert most_pilots(shop, processes) <= 2
    counts = [int(process.communicate()[0]) for process in processes]
    assert [process.returncode for process in processes] == [0] * 8
    assert sum(counts) >= 2
    while len(shop.done()) < len(jobs):
        shop.keep(max=2)
        time.sleep(0.1)
    assert shop.done() == dict.fromkeys(jobs, "ok")
    assert sorted(slots.holders(shop.spool)) in ([], [0], [1], [0, 1])


def test_of_hosts_with_different_policies_the_larger_maximum_is_the_bound(shop: Workshop) -> None:
    jobs = [shop.job("#!/bin/sh\nsleep 0.5\n") for _ in range(12)]
    processes = keepers(shop, 3, {"max": 1}, {"max": 3}, {"max": 2}, {"max": 1})
    assert most_pilots(shop, processes) <= 3
    assert all(process.wait() == 0 for process in processes)
    for process in processes:
        process.communicate()
    assert set(slots.holders(shop.spool)) <= {0, 1, 2}
    while len(shop.done()) < len(jobs):
        shop.keep(max=1)
        time.sleep(0.1)


def test_a_slot_beyond_ones_own_maximum_counts_too(shop: Workshop) -> None:
    assert slots.take(shop.spool, 2, "a" * 16) == 0
    assert slots.take(shop.spool, 2, "b" * 16) == 1
    slots.free(shop.spool, 0, "a" * 16)
    assert slots.take(shop.spool, 1, "c" * 16) is None
    assert slots.take(shop.spool, 2, "c" * 16) == 0


# ---- upgrades ------------------------------------------------------------------------------------


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """The next release: a copy whose protocol has the next number and accepts this one."""
    release = tmp_path / "newer"
    for part in ("on_hpc", "tools", "templates"):
        shutil.copytree(
            CHECKOUT / part, release / part, ignore=shutil.ignore_patterns("__pycache__")
        )
    package = release / "on_hpc" / "hpc_cluster" / "__init__.py"
    text = package.read_text().replace(f'VERSION = "{VERSION}"', 'VERSION = "99.0"')
    package.write_text(text.replace(f"\nPROTOCOL = {PROTOCOL}\n", f"\nPROTOCOL = {PROTOCOL + 1}\n"))
    return release


def newer_pass(host: World, release: Path) -> int:
    """Make one pass with the next release of both sides, as an upgraded service host does."""
    text = "import sys; sys.path[:0] = sys.argv[1:3]; from hpc_batch import config, submitter; "
    text += "from hpc_cluster import PROTOCOL; from pathlib import Path; "
    text += f"assert PROTOCOL == {PROTOCOL + 1}; "
    text += "sys.exit(submitter.run(config.load(Path(sys.argv[3])), submitter.Options()))"
    argv = [sys.executable, "-c", text, release / "tools", release / "on_hpc", host.ini]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(argv, env=environment, check=False, timeout=60).returncode


def test_a_new_submitter_serves_what_an_old_one_and_its_pilot_began(
    hosts: tuple[World, World], newer: Path
) -> None:
    """The old pilot finishes what was described for it, and leaves what it cannot understand."""
    here, _ = hosts
    here.configure(pilot={"linger": 30})
    go = here.root / "go"
    wait = f"while [ ! -e {go} ]; do sleep 0.05; done"
    here.drop("running", "shell", args={"code": wait})
    here.drop_copy("waiting")
    here.sweep()
    wait_until(lambda: len(list((here.workspace / "running").iterdir())) == 1)
    [old] = pilot.pilots(spool_of(here))
    here.drop_copy("later")
    assert newer_pass(here, newer) == 0
    go.touch()
    names = ["running", "waiting", "later"]
    end = time.monotonic() + 60
    while not all(here.finished(name).exists() for name in names):
        assert newer_pass(here, newer) == 0
        assert time.monotonic() < end, here.picture()
    answers = {name: here.answer(name) for name in names}
    assert {name: a["status"] for name, a in answers.items()} == dict.fromkeys(names, "ok")
    assert {name: a["attempts"] for name, a in answers.items()} == dict.fromkeys(names, 1)
    pilots = {name: a["pilot"]["id"] for name, a in answers.items()}
    assert pilots["running"] == pilots["waiting"] == old
    assert pilots["later"] != old, "described by the newer release, for a pilot of that release"


def test_an_old_submitter_works_with_a_newer_clusters_side(
    hosts: tuple[World, World], newer: Path
) -> None:
    here, _ = hosts
    here.drop("before", "sleep", args={"seconds": "1"}, output_map={"target": str(here.out / "b")})
    here.drop_copy("ready")
    here.sweep()
    env = {"workspace": here.workspace, "scripts": newer / "on_hpc" / "scripts"}
    here.configure(hpc_env=env)
    here.drop_copy("after")
    answers = here.until("before", "ready", "after")
    assert all(a["status"] == "ok" and a["attempts"] == 1 for a in answers.values())


def test_a_newer_submitter_waits_for_the_cluster_to_be_upgraded_first(
    hosts: tuple[World, World], newer: Path
) -> None:
    here, _ = hosts
    here.drop_copy("one")
    here.sweep()
    env = {"workspace": here.workspace, "scripts": CHECKOUT / "on_hpc" / "scripts"}
    here.configure(hpc_env=env)
    here.drop_copy("two")
    assert newer_pass(here, newer) != 0
    assert "protocol" in here.status()["cluster"]["trouble"]
    here.configure()
    end = time.monotonic() + 60
    while here.records():
        assert newer_pass(here, newer) == 0
        assert time.monotonic() < end, here.picture()
    assert [here.answer(name)["status"] for name in ("one", "two")] == ["ok", "ok"]
