"""The cluster of the tests itself: it leaves nothing behind, and says why it cannot be had."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cluster import recipe
from cluster.cluster import Cluster

pytestmark = pytest.mark.timeout(900)

START = """\
import sys, time
from cluster import host
made = host.start(tied=True)
print(made.address, made.init, flush=True)
time.sleep(600)
"""

TESTS = recipe.HERE.parent


def inhabitants(namespace: str) -> list[int]:
    """Return the processes of this machine that live in a PID namespace."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.readlink(entry / "ns" / "pid") == namespace:
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def links() -> set[str]:
    return {name for name in os.listdir("/sys/class/net") if name.startswith("hpcb")}


def test_nothing_stays_when_the_test_process_is_killed(whole_cluster: Cluster) -> None:
    before, mounts = links(), Path("/proc/self/mounts").read_text()
    process = subprocess.Popen(
        [sys.executable, "-c", START],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )
    with process:
        assert process.stdout is not None
        address, init = process.stdout.readline().split()
        assert address != whole_cluster.address
        namespace = os.readlink(f"/proc/{init}/ns/pid")
        assert len(inhabitants(namespace)) > 4
        assert len(links() - before) == 1
        process.kill()
    end = time.monotonic() + 20
    while inhabitants(namespace) or links() != before:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert Path("/proc/self/mounts").read_text() == mounts


def test_without_root_it_says_so_in_words() -> None:
    code = "from cluster import recipe\nrecipe.check()"
    done = subprocess.run(
        ["setpriv", "--reuid", "65534", sys.executable, "-B", "-c", code],
        capture_output=True,
        text=True,
        cwd=TESTS,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(TESTS)},
    )
    if "ermission denied" in done.stderr:
        pytest.skip("other accounts cannot read this checkout or this Python")
    assert "the cluster needs root" in done.stderr


def test_without_its_programs_it_names_the_packages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, whole_cluster: Cluster
) -> None:
    monkeypatch.setitem(recipe.NEEDS, "no-such-program", "no-such-package")
    with pytest.raises(recipe.Missing, match="apt-get install no-such-package"):
        recipe.check()
