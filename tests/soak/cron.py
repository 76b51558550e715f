"""The cron of a service host: starts passes, as processes of their own, and keeps what they say."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from typing import IO

from soak.clocks import CHECKOUT
from soak.history import History
from world import World

PATIENCE_S = 300.0
"""No pass takes longer, whatever is stopped."""


class Cron(threading.Thread):
    """Starts a pass every few seconds; now and then one while another still runs."""

    def __init__(
        self,
        host: World,
        history: History,
        period_s: float,
        seed: int,
        environment: Mapping[str, str],
    ) -> None:
        """Start passes with these variables beside one's own."""
        super().__init__(name=f"cron of {host.root.name}", daemon=True)
        self.host, self.period_s = host, period_s
        self.over = threading.Event()
        self.passes = 0
        self._history = history
        self._environment = {**os.environ, **environment}
        self._chance = random.Random(f"{seed} cron {host.root.name}")

    def run(self) -> None:
        """Run until `over` is set; the last pass comes to its end."""
        while not self.over.is_set():
            begin = time.monotonic()
            count = 2 if self._chance.random() < 0.1 else 1
            running = [self._start() for _ in range(count)]
            for process, stderr in running:
                self._end(process, stderr)
            self.over.wait(max(0.0, begin + self.period_s - time.monotonic()))

    def sweep(self) -> None:
        """Make one pass."""
        self._end(*self._start())

    def _start(self) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
        stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        program = [sys.executable, str(CHECKOUT / "tools" / "hpc_submitter"), str(self.host.ini)]
        process = subprocess.Popen(
            program,
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            env=self._environment,
            start_new_session=True,
        )
        return process, stderr

    def _end(self, process: subprocess.Popen[bytes], stderr: IO[bytes]) -> None:
        try:
            code: int | None = process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            code = None
            process.kill()
            process.wait()
        stderr.seek(0)
        said = stderr.read().decode(errors="replace")
        stderr.close()
        self.passes += 1
        self._history.note("pass", host=self.host.root.name, code=code, said=said[-2000:])
