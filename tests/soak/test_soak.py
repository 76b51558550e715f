"""A small soak; `tests/soak/run` does it with ten thousand jobs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(900)

CHECKOUT = Path(__file__).resolve().parents[2]


def test_a_small_soak_finds_nothing(tmp_path: Path) -> None:
    paths = os.pathsep.join(str(CHECKOUT / name) for name in ("tools", "on_hpc", "tests"))
    words = ["--jobs", "90", "--hosts", "3", "--pilots", "4", "--window", "30"]
    words += ["--every", "0.5", "--deeds", "20", "--period", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "soak", *words, "--folder", str(tmp_path / "soak")],
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    deeds = re.search(r"^(\d+) deeds", done.stdout, re.M)
    assert deeds and int(deeds[1]) > 0, done.stdout
    assert json.loads((tmp_path / "soak" / "facts.json").read_text())["jobs"] == 90
