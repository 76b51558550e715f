"""What a pass costs: staging, collecting, looking and taking; each from the process's start.

A pass is `tools/hpc_submitter` as cron starts it. The line to the cluster is a real sshd behind a
proxy that adds 15 ms each way. The batch system is a stand-in that queues pilots and never starts
them, so that nothing else runs while a pass is timed; the jobs are run by a runner that is started
by hand between staging and collecting.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.table import Missing, Row, absolute, alternate, fresh, ratio, rounds, scratch
from integration import proxy, sshd
from world import World

TITLE = "A pass"

CHECKOUT = Path(__file__).resolve().parents[2]
RTT_S = 0.030
TRANSPORTS = ("openssh", "fabric")

SLURM = {
    "sbatch": "#!/bin/sh\ncat > /dev/null\necho 'Submitted batch job 4711'\n",
    "squeue": "#!/bin/sh\n",
    "scancel": "#!/bin/sh\n",
}
"""A batch system that takes everything and lists nothing: a young pilot may be missing there."""


CRON = {
    "HOME": os.environ.get("HOME", "/"),
    "LOGNAME": getpass.getuser(),
    "PATH": "/usr/bin:/bin",
    "SHELL": "/bin/sh",
}
"""All that cron gives a program to go by (crontab(5))."""


class Site:
    """A service host and its cluster, behind a line or on this machine."""

    def __init__(self, root: Path, remote: dict[str, Any]) -> None:
        programs = root / "bin"
        programs.mkdir(parents=True)
        for name, text in SLURM.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        self.world = World(
            root,
            remote={**remote, "prologue": f"PATH={programs}:$PATH"},
            hpc={"scheduler": "slurm"},
            hpc_env={"scripts": CHECKOUT / "on_hpc" / "scripts"},
        )

    def drop(self, count: int) -> None:
        """Drop so many jobs with a small input and a small output each."""
        for number in range(count):
            self.world.drop_quick(f"job{number}")

    def sweep(self, code: int = 0) -> tuple[float, float]:
        """Make a pass; return its seconds and the peak of its memory in MiB."""
        program = [sys.executable, CHECKOUT / "tools" / "hpc_submitter", self.world.ini]
        begin = time.perf_counter()
        process = subprocess.Popen(program, stdin=subprocess.DEVNULL, env=CRON)
        _, status, usage = os.wait4(process.pid, 0)
        elapsed = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != code:
            raise RuntimeError(f"the pass exits with {process.returncode}\n{self.world.picture()}")
        return elapsed, usage.ru_maxrss / 1024

    def states(self) -> dict[str, int]:
        """Return how many jobs there are in each state."""
        return {k: v for k, v in self.world.status()["counts"].items() if v}

    def run_jobs(self) -> None:
        """Run every job that is ready, as a pilot would."""
        program = [sys.executable, CHECKOUT / "on_hpc" / "hpc_runner"]
        words = ["--workspace", self.world.workspace, "--pilot", secrets.token_hex(8)]
        words += ["--slots", "2", "--linger", "0", "--walltime", "28800"]
        subprocess.run(
            [*program, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )


@contextlib.contextmanager
def line(root: Path) -> Iterator[tuple[sshd.Sshd, proxy.Proxy]]:
    """Give an sshd and the proxy that delays it."""
    if sshd.MISSING or not shutil.which("rsync"):
        raise Missing(sshd.MISSING or "needs rsync")
    with sshd.running(root / "sshd") as server:
        with proxy.Proxy(server.port, delay_s=RTT_S / 2) as wire:
            text = server.known_hosts.read_text().replace(f":{server.port} ", f":{wire.port} ")
            (root / "known_hosts").write_text(text)
            yield server, wire


def remote(server: sshd.Sshd, port: int, transport: str, root: Path) -> dict[str, Any]:
    """Return the [remote] section that reaches the server through the proxy."""
    return {
        "transport": transport,
        "host": "127.0.0.1",
        "port": port,
        "user": server.user,
        "key_file": server.key,
        "known_hosts": root / "known_hosts",
        "python": sys.executable,
    }


def ssh(server: sshd.Sshd, port: int, root: Path) -> list[str]:
    """Return the words of a plain ssh through the proxy, without the host."""
    words = ["ssh", "-F", "none", "-p", str(port), "-i", str(server.key), "-l", server.user]
    for option in (
        f"UserKnownHostsFile={root / 'known_hosts'}",
        "GlobalKnownHostsFile=/dev/null",
        "BatchMode=yes",
        "IdentitiesOnly=yes",
    ):
        words += ["-o", option]
    return words


def copy(login: list[str], source: Path, target: Path, *, back: bool) -> float:
    """Carry a folder with one plain rsync over a login of its own."""
    target = fresh(target)
    far, near = f"127.0.0.1:{source if back else target}/", f"{target if back else source}/"
    ends = [far, near] if back else [near, far]
    begin = time.perf_counter()
    subprocess.run(["rsync", "-a", "-e", " ".join(login), *ends], check=True)
    return time.perf_counter() - begin


def run(words: list[str], **settings: Any) -> None:
    """Run a program and wait for its end."""
    subprocess.run(words, check=True, **settings)


def rows(quick: bool) -> list[Row]:
    """Measure passes over SSH, then passes over many jobs on this machine."""
    with scratch() as root, line(root) as (server, wire):
        found = over_ssh(root, server, wire, quick)
        found += idle(root, server, wire, quick)
    with scratch() as root:
        found += many(root, 1000 if quick else 10_000)
        if not quick:
            found += many(root, 100_000)
        found += nothing(root, quick)
    return found


def over_ssh(root: Path, server: sshd.Sshd, wire: proxy.Proxy, quick: bool) -> list[Row]:
    """Stage and collect 100 and 1,000 jobs, beside one rsync of as many files."""
    login = ssh(server, wire.port, root)
    sizes = {100: rounds(quick), 1000: rounds(quick, 3)}
    times: dict[tuple[str, int, str], list[float]] = {}
    for count, turns in sizes.items():
        folder = root / f"files{count}"
        folder.mkdir()
        for number in range(count):
            (folder / f"job{number}").write_text(f"job{number}")
        number = iter(range(1000))

        def cycle(transport: str, count: int = count, number: Iterator[int] = number) -> None:
            where = fresh(root / f"{transport}-{count}-{next(number)}")
            site = Site(where, remote(server, wire.port, transport, root))
            site.drop(count)
            times.setdefault(("stage", count, transport), []).append(site.sweep()[0])
            site.run_jobs()
            times.setdefault(("collect", count, transport), []).append(site.sweep()[0])
            if len(list(site.world.dropbox.glob("*.finished"))) != count:
                raise RuntimeError(site.world.picture())

        copied = alternate(
            {
                **{t: (lambda t=t: cycle(t)) for t in TRANSPORTS},
                "up": lambda f=folder, n=number: copy(
                    login, f, root / f"{f.name}-up{next(n)}", back=False
                ),
                "down": lambda f=folder, n=number: copy(
                    login, f, root / f"{f.name}-down{next(n)}", back=True
                ),
            },
            turns,
        )
        times["stage", count, "rsync"], times["collect", count, "rsync"] = (
            copied["up"],
            copied["down"],
        )
    found = []
    for verb in ("stage", "collect"):
        for count in sizes:
            for transport in TRANSPORTS:
                mine, theirs = times[verb, count, transport], times[verb, count, "rsync"]
                goal = None if (verb, count) == ("stage", 1000) else 1.5
                what = f"{verb} {count} jobs, `{transport}`"
                against = f"rsync of {count} files" + (" back" if verb == "collect" else "")
                found.append(ratio(what, against, mine, theirs, at_most=goal))
    for transport in TRANSPORTS:
        mine, theirs = times["stage", 1000, transport], times["stage", 100, transport]
        what = f"stage 1000 jobs, `{transport}`"
        found.append(ratio(what, "stage 100 jobs", mine, theirs, at_most=3))
    return found


def idle(root: Path, server: sshd.Sshd, wire: proxy.Proxy, quick: bool) -> list[Row]:
    """Look at 1,000 jobs that wait on the cluster, beside `ssh host true`."""
    count = 1000
    sites = {}
    for transport in TRANSPORTS:
        site = sites[transport] = Site(
            root / f"idle-{transport}", remote(server, wire.port, transport, root)
        )
        site.drop(count)
        site.sweep()
        site.sweep()
        if site.states() != {"staged": count}:
            raise RuntimeError(site.world.picture())
    login = [*ssh(server, wire.port, root), "127.0.0.1", "true"]
    times = alternate(
        {
            **{t: (lambda s=s: s.sweep()[0]) for t, s in sites.items()},
            "ssh": lambda: run(login),
        },
        rounds(quick, 11),
    )
    goals = {"openssh": 1.5, "fabric": 2.0}
    return [
        ratio(
            f"an idle pass, {count} jobs waiting on the cluster, `{transport}`",
            "`ssh host true`",
            times[transport],
            times["ssh"],
            at_most=goals[transport],
        )
        for transport in TRANSPORTS
    ]


def many(root: Path, count: int) -> list[Row]:
    """Take many drops on this machine, stage them, and look at them in flight."""
    away = Site(root / f"away{count}", {"transport": "openssh", "host": "127.0.0.1", "port": 1})
    away.drop(count)
    taking, taking_mib = away.sweep(75)
    idle_s, idle_mib = zip(*(away.sweep(75) for _ in range(3)))
    shutil.rmtree(away.world.root)
    site = Site(root / f"many{count}", {"transport": "local"})
    site.drop(count)
    whole, whole_mib = site.sweep()
    flight_s, flight_mib = zip(*(site.sweep() for _ in range(3)))
    if site.states() != {"staged": count}:
        raise RuntimeError(site.world.picture())
    shutil.rmtree(site.world.root)
    goal = {"at_most": 3.0} if count == 10_000 else {}
    room = {"at_most": 150.0} if count == 10_000 else {}
    return [
        absolute(f"take {count} drops", [taking / count * 1e3], "ms per drop", at_most=1),
        absolute(f"take {count} drops, memory", [taking_mib], "MiB", **room),
        absolute(f"an idle pass, {count} taken", idle_s, "s", **goal),
        absolute(f"an idle pass, {count} taken, memory", idle_mib, "MiB", **room),
        absolute(f"take, stage and publish {count} jobs", [whole / count * 1e3], "ms per job"),
        absolute(f"take, stage and publish {count} jobs, memory", [whole_mib], "MiB"),
        absolute(f"an idle pass, {count} on the cluster", flight_s, "s", **goal),
        absolute(f"an idle pass, {count} on the cluster, memory", flight_mib, "MiB", **room),
    ]


def nothing(root: Path, quick: bool) -> list[Row]:
    """Start the submitter with nothing to do, beside a Python that does nothing."""
    site = Site(root / "nothing", {"transport": "openssh", "host": "127.0.0.1", "port": 1})
    site.sweep()
    python = [sys.executable, "-c", "pass"]
    imports = [sys.executable, "-c", "import hpc_batch.client"]
    paths = os.pathsep.join(str(CHECKOUT / name) for name in ("tools", "on_hpc"))
    settings = {**os.environ, "PYTHONPATH": paths}
    times = alternate(
        {
            "pass": lambda: site.sweep()[0],
            "client": lambda: run(imports, env=settings),
            "python": lambda: run(python),
        },
        rounds(quick, 15),
    )
    bare = "`python3 -c pass`"
    return [
        ratio("a pass with nothing to do", bare, times["pass"], times["python"]),
        ratio("`import hpc_batch.client`", bare, times["client"], times["python"]),
    ]
