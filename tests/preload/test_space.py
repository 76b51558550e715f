"""Full file systems, of space or of inodes, under the programs as they are.

Dropbox, state, workspace and the outputs' folder each lie on a small tmpfs of their own, which is
filled when a round comes to a phase, and given room again after some passes. Jobs wait, the
operator is told, nothing is lost, and all ends as undisturbed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from preload.library import Act, Call, Judge, Role, built
from preload.rounds import LASTING, Fault, Round, calm, difference

FULL = bool(os.environ.get("HPC_BATCH_FULL"))
PLACES = ("dropbox", "state", "workspace", "out")
PHASES = ("taking", "running", "collecting", "cleaning")
SAMPLE = 3

CANNOT_PURGE = Fault(
    Role.SESSION, Call.RENAME, Act.FAIL, 1, errno.EIO, LASTING, "workspace/trash/*"
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount small file systems")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Round]:
    folder = tmp_path_factory.mktemp("space")
    library = built(folder)
    root = folder / "w"
    mounted = []
    try:
        for name in PLACES:
            (root / name).mkdir(parents=True)
            options = "size=64m,nr_inodes=8000,mode=700"
            command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(root / name)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                pytest.skip(f"cannot mount here: {done.stderr}")
            mounted.append(root / name)
        made = Round(root, Judge(library, folder / "judge", root))
        yield made
        made.end()
    finally:
        for path in mounted:
            subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture(scope="module")
def expected(here: Round) -> dict[str, Any]:
    return calm(here)


def fill_space(folder: Path) -> None:
    """Take all blocks."""
    descriptor = os.open(folder / ".filler", os.O_WRONLY | os.O_CREAT)
    for size in (1 << 20, 4096, 1):
        with contextlib.suppress(OSError):
            while True:
                os.write(descriptor, bytes(size))
    os.close(descriptor)


def fill_inodes(folder: Path) -> None:
    """Take all inodes."""
    filler = folder / ".filler"
    filler.mkdir()
    for number in range(1 << 20):
        try:
            (filler / str(number)).touch()
        except OSError as error:
            assert error.errno == errno.ENOSPC
            return


def empty(folder: Path) -> None:
    filler = folder / ".filler"
    if filler.is_dir():
        shutil.rmtree(filler)
    else:
        filler.unlink(missing_ok=True)


def reach(here: Round, phase: str) -> None:
    """Bring a round to a phase."""
    here.begin()
    if phase == "taking":
        return
    here.one_pass()
    if phase == "running":
        return
    end = time.monotonic() + 60
    while here.pilots() and time.monotonic() < end:
        time.sleep(0.02)
    if phase == "cleaning":
        # A purge cannot be made: all is answered, and waits to be cleaned.
        here.judge.arm(*CANNOT_PURGE)
        here.one_pass()
        here.judge.disarm()


def tried() -> list[tuple[str, str, Callable[[Path], None]]]:
    points = [(w, p, f) for w in PLACES for p in PHASES for f in (fill_space, fill_inodes)]
    return points if FULL else random.sample(points, SAMPLE)


@pytest.mark.timeout(2400)
def test_a_full_file_system_delays_and_changes_nothing(here: Round, expected: Any) -> None:
    for place, phase, fill in tried():
        point = f"{fill.__name__} of {place} while {phase}"
        print(point)
        reach(here, phase)
        fill(here.root / place)
        told = ""
        for _ in range(3):
            code = here.one_pass()
            told += here.said
            assert code in (0, 75), (point, code, here.said)
            time.sleep(0.2)
        quiet = here.is_quiet()
        empty(here.root / place)
        assert quiet or told, f"{point}: jobs wait, and nobody is told"
        here.settle()
        here.forget_beginnings()
        found = here.outcome()
        assert not here.problems, (point, here.problems)
        assert found == expected, (point, difference(expected, found))
