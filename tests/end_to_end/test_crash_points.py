"""A pass killed at its n-th effect, for n from the first to the last, ends as if undisturbed.

The normal run tries a sample of the points, HPC_BATCH_FULL=1 all of them, before and after.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from world import World, world

PROGRAM = Path(__file__).resolve().parents[1] / "data" / "killed_pass.py"
NAMES = ("bad", "fail", "a", "b", "none", "cancelled")
VARYING = ("id", "start", "end", "attempts", "node", "pilot", "times")
FULL = bool(os.environ.get("HPC_BATCH_FULL"))
SAMPLE = 10
"""Points of each pass that the normal run tries."""


def drop_all(here: World) -> None:
    """Drop jobs that are rejected, fail, succeed, overwrite, make nothing, and are cancelled."""
    here.drop("bad", "copi")
    here.drop("fail", "fail")
    for name in ("a", "b"):
        here.drop_copy(name, name * 100_000)
    (here.out / "a.out").write_text("older")
    (here.out / "none.out").write_text("older")
    here.drop("none", "nothing", output_map={"target": str(here.out / "none.out")})
    target = {"target": str(here.out / "c")}
    here.drop("cancelled", "sleep", args={"seconds": "60"}, output_map=target)
    (here.dropbox / "cancelled.job.cancel").touch()


def outcome(here: World) -> str:
    """Return everything that must not depend on kills, as text without this world's path."""
    answers = {
        name: {k: v for k, v in here.answer(name).items() if k not in VARYING} for name in NAMES
    }
    found = {
        "answers": answers,
        "outputs": {path.name: path.read_text()[:50] for path in sorted(here.out.iterdir())},
        "dropbox": sorted(os.listdir(here.dropbox)),
        "inner": sorted(os.listdir(here.dropbox / ".hpc_batch")),
        "cluster": [
            sorted(os.listdir(here.workspace / name))
            for name in ("incoming", "ready", "running", "jobs", "trash")
        ],
    }
    return json.dumps(found, sort_keys=True).replace(str(here.root), "ROOT")


def one_pass(here: World, at: int = 0, when: str = "before") -> subprocess.CompletedProcess[str]:
    settings = {"KILL_AT": str(at), "KILL_WHEN": when}
    command = [sys.executable, str(PROGRAM), str(here.ini)]
    return subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True)


def until_the_pass(here: World, which: str) -> None:
    """Bring a world to where the pass begins that is killed."""
    drop_all(here)
    if which == "collecting":
        here.sweep()
        here.wait_for_tickets(4)


@pytest.mark.parametrize("which", ["staging", "collecting"])
def test_a_pass_killed_at_any_effect_ends_as_if_undisturbed(tmp_path: Path, which: str) -> None:
    with world(tmp_path / "calm") as calm:
        until_the_pass(calm, which)
        effects = int(one_pass(calm).stdout)
        calm.until(*NAMES)
        expected = outcome(calm)
    assert effects > 50
    step = 1 if FULL else max(1, effects // SAMPLE)
    tried = 0
    for at in range(1, effects + 1, step):
        for when in ("before", "after") if FULL else (("before", "after")[tried % 2],):
            with world(tmp_path / f"{at}{when}") as here:
                until_the_pass(here, which)
                killed = one_pass(here, at, when)
                if killed.returncode == -9:
                    tried += 1
                here.until(*NAMES)
                assert outcome(here) == expected, f"killed {when} effect {at} of {effects}"
    print(f"{which}: {tried} points")
    assert tried >= SAMPLE - 3
