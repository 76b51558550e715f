"""What a program loads before it begins: a pass is started each minute, a client by every user."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from world import world

CHECKOUT = Path(__file__).resolve().parents[2]
HEAVY = {
    *("paramiko", "fabric", "invoke", "jinja2", "yaml", "rich", "cryptography", "asyncio"),
    *("subprocess", "ssl", "difflib", "tempfile", "email", "unittest"),
    *("hpc_batch.template", "hpc_batch.jobfile", "hpc_batch.hosts", "hpc_batch.session"),
    *("hpc_batch.client", "hpc_batch.status", "hpc_batch.steps", "hpc_batch.cli.arguments"),
}
"""What a pass with nothing to do has no use for."""


def loaded(words: list[object]) -> set[str]:
    """Return the modules that a Python loads for a program or a piece of code."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


@pytest.fixture(scope="module")
def bare() -> set[str]:
    """Return what Python loads by itself here."""
    return loaded(["-c", "pass"])


def test_a_pass_with_nothing_to_do_loads_little_and_does_not_connect(
    tmp_path: Path, bare: set[str]
) -> None:
    remote = {"transport": "fabric", "host": "127.0.0.1", "port": 1, "user": "nobody"}
    scripts = {"scripts": "/nowhere/on_hpc/scripts"}
    with world(tmp_path, remote=remote, hpc_env=scripts) as here:
        modules = loaded([CHECKOUT / "tools" / "hpc_submitter", here.ini]) - bare
        assert not modules & HEAVY
        assert here.status()["pass"]["logins"] == 0
        assert here.status()["pass"]["code"] == 0


def test_the_client_loads_nothing_heavy(bare: set[str]) -> None:
    paths = f"import sys; sys.path[:0] = [{str(CHECKOUT / 'tools')!r}]"
    modules = loaded(["-c", f"{paths}; import hpc_batch.client, hpc_submit"]) - bare
    its_own = {"yaml", "difflib", "tempfile", "hpc_batch.jobfile", "hpc_batch.client"}
    assert not modules & (HEAVY - its_own)
