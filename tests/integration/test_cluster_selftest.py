"""Spool, runner, queuer and local batch system, for real, under every Python of this machine."""

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

SELFTEST = Path(__file__).parent.parent / "data" / "cluster_selftest.py"
OLDEST, NEWEST = 6, 20


def interpreters():
    """Return the Pythons of this machine by version: those on PATH and pyenv's."""
    found = {}
    for minor in range(OLDEST, NEWEST):
        on_path = shutil.which(f"python3.{minor}")
        if on_path and ".pyenv/shims" not in on_path:
            found[f"3.{minor}"] = on_path
    for program in sorted(Path.home().glob(".pyenv/versions/*/bin/python")):
        version = re.match(r"3\.(\d+)\.", program.parent.parent.name)
        if version and OLDEST <= int(version.group(1)) < NEWEST:
            found[f"3.{version.group(1)}"] = str(program)
    return found


def run(python, workspace):
    return subprocess.run(
        [python, "-b", SELFTEST, workspace],
        env=dict(os.environ, LC_ALL="C", PYTHONWARNINGS="error"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Begin with every Python, three at a time, since each waits more than it works."""
    with ThreadPoolExecutor(3) as threads:
        yield {
            version: threads.submit(run, python, tmp_path_factory.mktemp(version) / "workspace")
            for version, python in interpreters().items()
        }


@pytest.mark.parametrize("version", [f"3.{minor}" for minor in range(OLDEST, NEWEST - 5)])
def test_the_clusters_side_works_under(version, runs):
    if version not in runs:
        pytest.skip(f"this machine has no Python {version}")
    process = runs[version].result()
    assert process.returncode == 0, process.stdout
    assert process.stdout.count("ok ") == 5
