"""The cluster's side with faster clocks, so that a soak need not wait for ten minutes.

A copy of on_hpc in which the constants of dead pilots and of backing off are smaller, all by the
same measure. Nothing else differs, and a constant that is not found is an error.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]

LEASE_S = 600.0
"""As it is in the product."""

CLOCKS = {
    "pilot.py": {"BEAT_S": 30.0, "STILL_S": 120.0, "LEASE_S": LEASE_S},
}

BACKOFF = "DELAYS_S = (0.0, 60.0, 900.0, 1800.0, 3600.0)"
FAST_BACKOFF = "DELAYS_S = (0.0, 1.0, 2.0, 3.0, 5.0)"


def hasten(folder: Path, lease_s: float) -> Path:
    """Copy on_hpc to a folder, with a lease of so many seconds; return its scripts."""
    shutil.copytree(
        CHECKOUT / "on_hpc", folder, ignore=shutil.ignore_patterns("__pycache__", "workspace")
    )
    for name, constants in CLOCKS.items():
        path = folder / "hpc_cluster" / name
        text = path.read_text()
        for constant, value in constants.items():
            faster = value * lease_s / LEASE_S
            line, count = re.compile(f"^{constant} = {value}$", re.M), 0
            text, count = line.subn(f"{constant} = {faster}", text)
            assert count == 1, f"{name} has no {constant} = {value}"
        path.write_text(text)
    path = folder / "hpc_cluster" / "backoff.py"
    text = path.read_text()
    assert BACKOFF in text
    path.write_text(text.replace(BACKOFF, FAST_BACKOFF))
    return folder / "scripts"
