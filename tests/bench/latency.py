"""From a drop to its answer: the pass lingers, a pilot is alive, the line is an SSH connection.

One job after the other is dropped by the client, and the time until its `.finished` is there is
taken. The pilot is idle when a job comes, as it is where jobs come now and then: a pause of random
length before each drop keeps the drop from falling into step with whoever looks periodically.
"""

from __future__ import annotations

import dataclasses
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.table import Missing, Row, absolute, scratch
from integration import proxy, sshd
from world import World, world

from hpc_batch.client import Dropbox

TITLE = "From a drop to its answer"

CHECKOUT = Path(__file__).resolve().parents[2]
IDLE_S = 20


def rows(quick: bool) -> list[Row]:
    """Measure the latency at two round-trip times, and what an idle minute costs."""
    if sshd.MISSING:
        raise Missing(sshd.MISSING)
    found = []
    jobs = 8 if quick else 40
    with scratch() as folder, sshd.running(folder / "sshd") as server:
        for transport in ("fabric", "openssh"):
            for delay_ms in (0, 30):
                name = f"{transport}-{delay_ms}"
                with proxy.Proxy(server.port, delay_s=delay_ms / 2000) as line:
                    with _site(folder / name, server, transport, line.port) as here:
                        times = [_latency(here, number) for number in range(jobs)]
                what = f"drop to `.finished`, a trivial job, {transport}, {delay_ms} ms round trip"
                worst = f"nine of ten within {statistics.quantiles(times, n=10)[-1]:.2f} s"
                found.append(absolute(what, times, "s", at_most=1.0, note=worst))
        found += _idle(folder / "idle", server, quick)
    return found


@contextmanager
def _site(folder: Path, server: sshd.Sshd, transport: str, port: int) -> Iterator[World]:
    """Serve a dropbox with passes that linger, one minute after the other, as cron does."""
    known_hosts = folder.with_suffix(".known_hosts")
    text = server.known_hosts.read_text()
    known_hosts.write_text(text.replace(f":{server.port} ", f":{port} "))
    remote = server.remote(transport, port=port, known_hosts=known_hosts, python=sys.executable)
    section = {k: v for k, v in dataclasses.asdict(remote).items() if v}
    keys = {
        "remote": section,
        "hpc_env": {"scripts": CHECKOUT / "on_hpc" / "scripts"},
        "pilot": {"linger": 600},
        "cronjob": {"linger": 60},
    }
    with world(folder, **keys) as here:
        with serving(here):
            _latency(here, -1)  # the first job starts the pilot
            yield here


@contextmanager
def serving(here: World) -> Iterator[None]:
    """Start a pass whenever there is none, as cron would each minute."""
    words = f'while :; do "{sys.executable}" "{CHECKOUT}/tools/hpc_submitter" "{here.ini}"; done'
    loop = subprocess.Popen(["/bin/sh", "-c", words], start_new_session=True)
    try:
        yield
    finally:
        os.killpg(loop.pid, 9)
        loop.wait()


def _latency(here: World, number: int) -> float:
    """Drop a trivial job and return the seconds until it is answered."""
    time.sleep(0.5 + random.random())
    name = f"job{number}"
    begin = time.perf_counter()
    Dropbox(here.dropbox).submit(script="say", args={"words": "hello"}, name=name)
    while not here.finished(name).exists():
        time.sleep(0.002)
        if time.perf_counter() - begin > 120:
            raise RuntimeError(here.picture())
    return time.perf_counter() - begin


def _idle(folder: Path, server: sshd.Sshd, quick: bool) -> list[Row]:
    """Return what a lingering pass costs while one job runs and nothing happens."""
    with proxy.Proxy(server.port) as line:
        with _site(folder, server, "fabric", line.port) as here:
            here.drop("long", "sleep", args={"seconds": "600"})
            time.sleep(5)
            pid = _pass_of(here)
            spent, moved = _cpu_s(pid), line.up_bytes + line.down_bytes
            time.sleep(5 if quick else IDLE_S)
            if _pass_of(here) != pid:
                return []  # the minute ended meanwhile
            seconds = 5 if quick else IDLE_S
            cpu = 100 * (_cpu_s(pid) - spent) / seconds
            rate = (line.up_bytes + line.down_bytes - moved) / seconds
    return [
        absolute("CPU of a pass that lingers over a running job", [cpu], "%"),
        absolute("bytes on the wire meanwhile", [rate], "bytes/s"),
    ]


def _pass_of(here: World) -> int:
    """Return the process id of the pass that runs."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[-2:] == [os.fsencode(here.ini), b""] and b"-c" not in words:
                return int(entry.name)
    raise RuntimeError("no pass runs")


def _cpu_s(pid: int) -> float:
    """Return the CPU time of a process so far."""
    fields = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
