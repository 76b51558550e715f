"""The command line as an operator uses it: real processes, from the checkout, about one world."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from world import World

CHECKOUT = Path(__file__).resolve().parents[1]


@dataclass
class Done:
    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value


@dataclass
class Operator:
    """Commands about one world, with an environment of their own."""

    world: World
    environment: dict[str, str] = field(default_factory=dict)

    def __call__(self, *argv: str | Path) -> Done:
        return call(self.environment, "-c", self.world.ini, *argv)

    def checks(self, *argv: str) -> tuple[int, dict[str, dict[str, Any]]]:
        """Run the doctor; return its exit code and the findings by name."""
        done = self("--json", "doctor", *argv)
        assert done.out, done.err
        return done.code, {row["check"]: row for row in done.document["checks"]}


def call(environment: dict[str, str], *argv: str | Path, stdin: bytes = b"") -> Done:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HPC_BATCH_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", CHECKOUT / "tools/hpc-batch", *argv],
        input=stdin,
        capture_output=True,
        env={**clean, **environment},
        timeout=120,
        check=False,
    )
    out, err = done.stdout.decode("utf-8"), done.stderr.decode("utf-8")
    assert "Traceback" not in err, err
    return Done(done.returncode, out, err)
