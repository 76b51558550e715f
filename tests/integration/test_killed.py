"""A far end killed between any two of its effects: the next pass ends the job all the same.

The normal run kills before every third effect, HPC_BATCH_FULL=1 before each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from integration import life

FULL = bool(os.environ.get("HPC_BATCH_FULL"))


def run(checkout: Path, folder: Path, count: int) -> int:
    """Run the job's life; return its exit status: 9 when it was killed."""
    path = os.pathsep.join([str(checkout / "on_hpc"), str(checkout / "tests")])
    program = [sys.executable, life.__file__, str(folder / "workspace"), str(folder / "record")]
    done = subprocess.run(
        [*program, str(count)],
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode in (0, 9), done.stderr
    return done.returncode


def test_a_kill_before_any_effect_changes_nothing_in_the_end(
    tmp_path: Path, checkout: Path
) -> None:
    for killed in range(1, 1000, 1 if FULL else 3):
        folder = tmp_path / str(killed)
        folder.mkdir()
        if run(checkout, folder, killed) == 0:
            break
        # The next pass may be killed as well, somewhere else, before one gets through.
        run(checkout, folder, 1 + killed * 7 % 40)
        assert run(checkout, folder, 0) == 0
        workspace = folder / "workspace"
        assert json.loads((folder / "record").read_text()) == {"phase": "ended"}
        for name in ("incoming", "ready", "running", "jobs", "trash", f"done/{life.INSTANCE}"):
            assert os.listdir(workspace / name) == [], (killed, name)
        assert (workspace / "inputs" / life.KEY).read_bytes() == life.STORED
    assert killed > 40
