"""Random SIGKILLs of submitter and runner: every job is answered once, and as if undisturbed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from world import World, world

CHECKOUT = Path(__file__).resolve().parents[2]
JOBS = 24
VARYING = ("id", "start", "end", "attempts", "node", "pilot", "times")


def drop_all(here: World) -> list[str]:
    """Drop jobs that succeed, fail, make no output, and overwrite; return their names."""
    names = []
    for number in range(JOBS):
        name = f"job{number}"
        names.append(name)
        kind = number % 6
        if kind == 0:
            here.drop(name, "fail")
        elif kind == 1:
            here.drop(name, "nothing", output_map={"target": str(here.out / f"{name}.out")})
        elif kind == 2:
            here.drop(name, "copi")
        else:
            if kind == 3:
                (here.out / f"{name}.out").write_text("older")
            here.drop_copy(name, f"content of {name}" * 10_000)
    return names


def outcome(here: World, names: list[str]) -> dict[str, Any]:
    """Return everything that must not depend on kills."""
    answers = {}
    for name in names:
        node = here.answer(name)
        answers[name] = {k: v for k, v in node.items() if k not in VARYING}
    files = {path.name: path.read_text() for path in here.out.iterdir()}
    dropped = sorted(p.name for p in here.dropbox.iterdir())
    return {"answers": answers, "files": files, "dropbox": dropped}


def one_pass(here: World) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, CHECKOUT / "tools" / "hpc_submitter", here.ini],
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_kills_at_random_moments_change_nothing(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    with world(tmp_path / "undisturbed") as calm:
        names = drop_all(calm)
        calm.until(*names)
        expected = outcome(calm, names)
    with world(tmp_path / "disturbed") as here:
        drop_all(here)
        for turn in range(25):
            running = one_pass(here)
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(chance.uniform(0.2, 1.2))
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
                running.wait()
            if turn in (8, 16):
                for pid in here.pilots():
                    os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + 120
        while here.records() or len(list(here.dropbox.glob("*.finished"))) < JOBS:
            running = one_pass(here)
            running.wait(60)
            assert time.monotonic() < end, here.picture()
        assert outcome(here, names) == _moved(expected, calm.root, here.root)
        history = (here.state / "history.jsonl").read_text().splitlines()
        assert len({line.split('"id": "')[1][:43] for line in history}) == JOBS


def _moved(expected: dict[str, Any], old: Path, new: Path) -> Any:
    """Return an outcome with the paths of one world in place of the other's."""
    if isinstance(expected, dict):
        return {k: _moved(v, old, new) for k, v in expected.items()}
    return expected.replace(str(old), str(new)) if isinstance(expected, str) else expected


def test_a_client_of_2021_drops_polls_loads_and_deletes(tmp_path: Path) -> None:
    """NamedTemporaryFile in the dropbox, polling, loading at once, deleting: 20 at a time."""
    import tempfile

    import yaml

    with world(tmp_path) as here:
        waiting = set()
        for number in range(20):
            with tempfile.NamedTemporaryFile(
                mode="w", encoding="utf-8", suffix=".job", dir=here.dropbox, delete=False
            ) as file:
                yaml.dump({"script": "say", "args": {"words": f"number {number}"}}, file)
            waiting.add((Path(f"{file.name}.finished"), f"number {number}\n"))
        end = time.monotonic() + 90
        while waiting:
            assert time.monotonic() < end, here.picture()
            here.sweep()
            for path, said in list(waiting):
                if path.exists():
                    job = yaml.safe_load(path.read_text())
                    path.unlink()
                    assert (job["job"]["status"], job["job"]["stdout"]) == ("ok", said)
                    waiting.discard((path, said))
        here.sweep()
        assert sorted(os.listdir(here.dropbox)) == [".hpc_batch"]
