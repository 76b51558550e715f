"""A batch system that lies, and a file server with stale listings: nothing is lost or doubled.

What takes real clusters minutes (a pilot that never was, a back-off) goes by while no pilot lives.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from preload.library import Act, Call, Judge, Role, built
from preload.rounds import Round, calm, difference

FAKEBIN = Path(__file__).resolve().parents[1] / "fakebin"
FULL = bool(os.environ.get("HPC_BATCH_FULL"))
ROUNDS = 60 if FULL else 1

SBATCH = """\
#!/bin/sh
case "$LIE" in
claims) cat > /dev/null; echo 4711; exit 0 ;;
garbage) cat > /dev/null; echo "### $(date) ###"; exit 0 ;;
esac
exec {fakebin}/sbatch "$@"
"""

SQUEUE = """\
#!/bin/sh
case "$LIE" in
garbage) printf '%%|\\001|RUNNING||\\n||||||||\\n'; exit 0 ;;
nothing) exit 0 ;;
undead) {fakebin}/squeue "$@" | sed 's/|FAILED|/|RUNNING|/'; exit 0 ;;
esac
exec {fakebin}/squeue "$@"
"""

LIES = ("", "", "claims", "garbage", "nothing", "undead")
SUBMITTING = ("", "", "refuse", "away", "lost", "ghost", "mute", "banner", "late")
LISTING = ("", "", "away", "cut", "purge", "blind", "banner", "late")

HOUR_S = 3600


class Lying(Round):
    """A world on a Slurm that says what the environment wants."""

    def __init__(self, root: Path, judge: Judge) -> None:
        super().__init__(root, judge, hpc={"scheduler": "slurm"})
        memory, programs = root / "slurm", root / "bin"
        for folder in (memory, programs):
            folder.mkdir()
        for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE)):
            (programs / name).write_text(text.format(fakebin=FAKEBIN))
            (programs / name).chmod(0o755)
        path = f"{programs}:{FAKEBIN}:{os.environ['PATH']}"
        self.honest = {"PATH": path, "FAKE_BATCH": str(memory)}
        self.more = self.honest

    def one_pass(self) -> int:
        """Make a pass; where no pilot lives, hours go by after it."""
        code = super().one_pass()
        if not self.pilots():
            self.judge.wait(700)
            trouble = self.workspace / "pilots" / "trouble"
            if trouble.exists():
                before = trouble.stat().st_mtime
                os.utime(trouble, (before, before - HOUR_S))
        return code


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lying]:
    folder = tmp_path_factory.mktemp("lies")
    made = Lying(folder / "w", Judge(built(folder), folder / "judge", folder / "w"))
    yield made
    made.end()


@pytest.mark.timeout(3600)
def test_a_batch_system_that_lies_delays_and_changes_nothing(here: Lying) -> None:
    seed = int(os.environ.get("HPC_BATCH_SEED", random.randrange(1 << 30)))
    print(f"seed {seed}")
    expected: dict[str, Any] = calm(here)
    for number in range(ROUNDS):
        chance = random.Random(f"{seed}.{number}")
        here.begin()
        told = []
        for _ in range(chance.choice([2, 4, 8] if FULL else [2, 4])):
            lies = {
                "LIE": chance.choice(LIES),
                "FAKE_SUBMIT": chance.choice(SUBMITTING),
                "FAKE_LIST": chance.choice(LISTING),
            }
            told.append(lies)
            here.more = {**here.honest, **lies}
            if chance.random() < 0.5:
                here.judge.arm(Role.SESSION, Call.LIST, Act.HIDE, chance.randint(1, 200), 0, 20)
            here.one_pass()
            here.judge.disarm()
        here.more = here.honest
        here.settle()
        found = here.outcome()
        found["slots"] = expected["slots"]  # their number is the policy's to say
        assert not here.problems, (f"seed {seed}.{number}", told, here.problems)
        assert found == expected, (f"seed {seed}.{number}", told, difference(expected, found))
