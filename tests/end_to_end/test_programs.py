"""The programs of a bare checkout, started by Pythons that lack what they need."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = ["hpc-batch", "hpc_submitter"]
BARE = [sys.executable, "-S"]
"""This Python without its installed packages."""


def older_pythons() -> list[Path]:
    """Return interpreters of this machine that are too old for the service host."""
    beside = Path(sys.base_prefix).parent.glob("3.[678].*/bin/python")  # as pyenv lays them out
    found = [*beside, *map(Path, filter(None, map(shutil.which, ["python3.6", "python3.8"])))]
    return [p for p in found if start([str(p), "-c"], Path("pass")).returncode == 0]


def start(python: list[str], program: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*python, str(program), *argv],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/usr/bin:/bin"},
        check=False,
    )


@pytest.fixture
def lonely(tmp_path: Path, checkout: Path) -> Path:
    """The programs in a checkout without a virtual environment."""
    (tmp_path / "tools").mkdir()
    for name in (*PROGRAMS, "from_checkout.py"):
        shutil.copy(checkout / "tools" / name, tmp_path / "tools")
    return tmp_path / "tools"


def told_how_to_set_up(done: subprocess.CompletedProcess[str], checkout: Path) -> None:
    assert done.returncode == 78
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert f"python3 -m venv {checkout}/.venv" in done.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_without_packages_and_environment_it_says_in_one_line_how_to_set_up(
    program: str, lonely: Path
) -> None:
    done = start(BARE, lonely / program, "--version")
    told_how_to_set_up(done, lonely.parent)
    assert "lacks yaml" in done.stderr


def test_a_python_that_is_too_old_is_told_the_same_way(lonely: Path) -> None:
    pythons = older_pythons()
    if not pythons:
        pytest.skip("this machine has no Python that is too old")
    for python in pythons:
        done = start([str(python)], lonely / "hpc_submitter", "x.ini")
        told_how_to_set_up(done, lonely.parent)
        assert "too old" in done.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_with_the_checkouts_environment_it_starts_again_there(program: str, checkout: Path) -> None:
    if not (checkout / ".venv/bin/python").exists():
        pytest.skip("this checkout has no .venv")
    for python in (BARE, *([str(p)] for p in older_pythons())):
        done = start(python, checkout / "tools" / program, "--version")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("hpc-batch ")


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_link_to_the_program_finds_its_checkout(
    program: str, tmp_path: Path, checkout: Path
) -> None:
    (tmp_path / "link").symlink_to(checkout / "tools" / program)
    done = start([sys.executable], tmp_path / "link", "--version")
    assert (done.returncode, done.stderr) == (0, "")
