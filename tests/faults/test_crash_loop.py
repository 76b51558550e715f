"""Every fault at every effect, on both sides: the end is that of the undisturbed run.

The normal run tries a sample of the points, HPC_BATCH_FULL=1 all of them and all pairs of the
smaller scenarios, which takes hours. The sweep runs in a process of its own: it forks all others.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from faults.scenarios import SCENARIOS
from faults.seam import DISK
from faults.table import FAULTS, KILL, faults_of

from hpc_cluster import effects

CHECKOUT = Path(__file__).resolve().parents[2]
FULL = bool(os.environ.get("HPC_BATCH_FULL"))
SAMPLE, PAIRS = 8, 2
"""Points and pairs of each scenario in the normal run."""

SMALL = ("rejected", "one", "over", "cancelled")
"""Scenarios of which the full run tries all pairs."""


def sweep(*words: str, first: str = "") -> subprocess.CompletedProcess[str]:
    roots = [first, *(str(CHECKOUT / name) for name in ("tools", "on_hpc", "tests"))]
    return subprocess.run(
        [sys.executable, "-m", "faults.sweep", *words],
        env={**os.environ, "PYTHONPATH": ":".join(filter(None, roots))},
        capture_output=True,
        text=True,
    )


@pytest.mark.timeout(0 if FULL else 1200)
@pytest.mark.parametrize("name", SCENARIOS)
def test_any_fault_at_any_effect_ends_as_if_undisturbed(name: str) -> None:
    size = [f"--sample={SAMPLE}", f"--pairs={PAIRS}"]
    if FULL:
        size = ["--pairs=-1" if name in SMALL else "--pairs=1000"]
    done = sweep("--scenario", name, *size)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_defect_is_found(tmp_path: Path) -> None:
    """A journal that is emptied first is lost where a pass is killed before the bytes come."""
    (tmp_path / "sitecustomize.py").write_text(
        "from hpc_cluster import files\n"
        "def write_end(path, end, pieces):\n"
        "    before = files.read_bytes(path)[:end]\n"
        "    files.write_new(path, before + b''.join(pieces))\n"
        "files.write_end = write_end\n"
    )
    writes = ("--effects=write", "--paths=.*/state/journal", "--kinds=kill-before", "--sample=2")
    done = sweep("--scenario=rejected", *writes, first=str(tmp_path))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 bad" in done.stdout


def test_the_table_names_every_effect_of_the_layer() -> None:
    public = {
        name
        for name, value in vars(effects).items()
        if callable(value) and value.__module__ == effects.__name__ and not name.startswith("_")
    }
    asking = {"access", "has_syncfs"}
    assert public - {"run"} - asking == {*DISK, "start"}
    assert {*DISK, "start"} <= FAULTS.keys()
    assert all(faults_of("pass", name)[0] == KILL for name in FAULTS)
