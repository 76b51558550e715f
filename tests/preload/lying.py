"""A world on a batch system that lies.

What takes real clusters minutes (a pilot that never was, a back-off) goes by while no pilot lives.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preload.library import Judge
from preload.rounds import HOUR_S, Round

FAKEBIN = Path(__file__).resolve().parents[1] / "fakebin"

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


class Lying(Round):
    """A world on a Slurm that says what the environment wants."""

    def __init__(self, root: Path, judge: Judge, **keys: Mapping[str, Any]) -> None:
        super().__init__(root, judge, hpc={"scheduler": "slurm"}, **keys)
        memory, programs = root / "slurm", root / "bin"
        for folder in (memory, programs):
            folder.mkdir()
        for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE)):
            (programs / name).write_text(text.format(fakebin=FAKEBIN))
            (programs / name).chmod(0o755)
        path = f"{programs}:{FAKEBIN}:{os.environ['PATH']}"
        self._honest = {"PATH": path, "FAKE_BATCH": str(memory)}
        self.be_honest()

    def be_honest(self) -> None:
        """Have the batch system tell the truth from now on."""
        self.more = self._honest

    def lie(self, chance: random.Random) -> dict[str, str]:
        """Choose what the batch system says wrong from now on."""
        lies = {
            "LIE": chance.choice(LIES),
            "FAKE_SUBMIT": chance.choice(SUBMITTING),
            "FAKE_LIST": chance.choice(LISTING),
        }
        self.more = {**self._honest, **lies}
        return lies

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
