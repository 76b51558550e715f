"""What no pass can go below: its system calls alone, in the order in which a pass makes them.

Each contender does for many jobs what taking or collecting does to the disks of the service host,
and nothing else: names and contents are at hand, nothing is parsed, checked or written as YAML. So
the difference to `passes` is what a pass computes, and what it waits for the cluster.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench.passes import copy, line, run, ssh
from bench.table import Row, absolute, alternate, fresh, ratio, rounds, scratch

from hpc_cluster import effects

TITLE = "What no pass can go below"

RECORD = b"r" * 600
DESCRIPTION = b"d" * 1800
ANSWER = b"a" * 900
DROP = b"script: quick\nargs: {}\n...\n"
"""As long as those of the jobs of `passes`."""


def rows(quick: bool) -> list[Row]:
    """Measure the calls of taking and collecting, and a login that starts a Python."""
    count, many = 1000, 1000 if quick else 10_000
    with scratch() as root, line(root) as (server, wire):
        login = ssh(server, wire.port, root)
        files = root / "files"
        files.mkdir()
        for number in range(count):
            (files / f"job{number}").write_text(f"job{number}")
        run(["rsync", "-a", "-e", " ".join(login), f"{files}/", f"127.0.0.1:{root / 'far'}/"])
        turn = iter(range(1000))
        times = alternate(
            {
                "python": lambda: _login(login),
                "true": lambda: run([*login, "127.0.0.1", "true"]),
                "collect": lambda: _timed(root / f"c{next(turn)}", count, _collected),
                "back": lambda: copy(login, files, root / f"back{next(turn)}", back=True),
                "take": lambda: _timed(root / f"t{next(turn)}", many, _taken),
            },
            rounds(quick),
        )
    both = [one + two for one, two in zip(times["python"], times["collect"])]
    return [
        ratio(
            "log in, and ask a Python there one question",
            "`ssh host true`",
            times["python"],
            times["true"],
        ),
        ratio(
            f"the file operations of collecting {count} jobs",
            f"rsync of {count} files back",
            times["collect"],
            times["back"],
        ),
        ratio("both", f"rsync of {count} files back", both, times["back"]),
        absolute(
            f"the file operations of taking {many} drops",
            [t / many * 1e3 for t in times["take"]],
            "ms per drop",
        ),
    ]


def _login(login: list[str]) -> None:
    """Start a Python here, and by it one on the cluster, and have that answer one line."""
    far = f"exec {sys.executable} -c 'print(input())'"
    near = (
        "import subprocess, sys\n"
        "there = subprocess.Popen(sys.argv[1:], stdin=-1, stdout=-1)\n"
        "print(there.communicate(b'hello\\n')[0])\n"
    )
    run([sys.executable, "-c", near, *login, "127.0.0.1", far], stdout=subprocess.DEVNULL)


def _timed(root: Path, count: int, work: Callable[[Path, int], float]) -> float:
    """Do something in a folder of its own; return its seconds."""
    root = fresh(root)
    for name in ("inner", "out", "trash"):
        (root / name).mkdir()
    return work(root, count)


def _taken(root: Path, count: int) -> float:
    """Take drops: reserve the answers, rename the drops, and show that they are taken."""
    for number in range(count):
        _make(f"{root}/job{number}.job", DROP)
    _sync(root)
    begin = time.perf_counter()
    with open(f"{root}/journal", "wb", buffering=0) as journal:
        for number in range(count):
            answer = os.open(f"{root}/inner/{number}.answer", os.O_WRONLY | os.O_CREAT, 0o600)
            os.posix_fallocate(answer, 0, 4096)
            os.close(answer)
        _sync(root)
        for number in range(count):
            os.rename(f"{root}/job{number}.job", f"{root}/inner/{number}.drop")
        for text in (RECORD, RECORD + DESCRIPTION):
            journal.write(text * count)
            os.fsync(journal.fileno())
        for number in range(count):
            drop = os.open(f"{root}/inner/{number}.drop", os.O_RDONLY)
            os.read(drop, 4096)
            os.close(drop)
            _make(f"{root}/inner/{number}.submitted", DROP * 2)
            os.rename(f"{root}/inner/{number}.submitted", f"{root}/job{number}.job.submitted")
    return time.perf_counter() - begin


def _collected(root: Path, count: int) -> float:
    """Collect jobs: place an output, fill the answer and give it its name, put the rest away."""
    for number in range(count):
        _make(f"{root}/inner/{number}.answer", bytes(4096))
        _make(f"{root}/inner/{number}.drop", DROP)
        _make(f"{root}/job{number}.job.submitted", DROP * 2)
    _sync(root)
    begin = time.perf_counter()
    with open(f"{root}/journal", "wb", buffering=0) as journal:
        for number in range(count):
            _make(f"{root}/out/.{number}", b"job")
        _sync(root)
        journal.write((RECORD + ANSWER) * count)
        os.fsync(journal.fileno())
        for number in range(count):
            os.rename(f"{root}/out/.{number}", f"{root}/out/{number}")
        _sync(root)
        journal.write(RECORD * count)
        os.fsync(journal.fileno())
        for number in range(count):
            answer = os.open(f"{root}/inner/{number}.answer", os.O_WRONLY)
            os.pwrite(answer, ANSWER, 0)
            os.ftruncate(answer, len(ANSWER))
            os.close(answer)
        _sync(root)
        for number in range(count):
            os.rename(f"{root}/job{number}.job.submitted", f"{root}/trash/{number}.submitted")
            os.rename(f"{root}/inner/{number}.answer", f"{root}/job{number}.job.finished")
        _sync(root)
        journal.write(RECORD * count)
        os.fsync(journal.fileno())
        for number in range(count):
            os.rename(f"{root}/inner/{number}.drop", f"{root}/trash/{number}.drop")
    return time.perf_counter() - begin


def _make(path: str, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(descriptor, data)
    os.close(descriptor)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    effects.syncfs(descriptor)
    os.close(descriptor)
