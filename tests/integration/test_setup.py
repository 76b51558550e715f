"""The set-up of a checkout on machines that lack something, each played by programs on PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """\
set -euo pipefail
program=quickstart
source tools/setup.sh
make_venv run "$@"
echo "$python"
"""


class Machine:
    """A copy of the checkout's set-up, and a PATH that holds only what a test puts there."""

    def __init__(self, folder: Path, checkout: Path) -> None:
        self.checkout = folder / "checkout"
        (self.checkout / "tools").mkdir(parents=True)
        shutil.copy(checkout / "tools/setup.sh", self.checkout / "tools")
        self.require("")
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name in ("bash", "cat", "dirname", "env", "head", "id", "ls", "rm", "tail"):
            (self.bin / name).symlink_to(shutil.which(name) or name)
        self.calls = folder / "calls"
        self.calls.touch()
        self.environment = {"PATH": str(self.bin), "HOME": str(folder), "LC_ALL": "C.UTF-8"}

    def require(self, requirement: str) -> None:
        """Let setup.cfg ask for one package, or for none."""
        (self.checkout / "setup.cfg").write_text(
            f"[options]\ninstall_requires =\n    {requirement}\n[options.extras_require]\ntest =\n"
        )

    def program(self, name: str, text: str) -> None:
        """Put a shell script on PATH that notes its call first."""
        path = self.bin / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >> {self.calls}\n{text}\n')
        path.chmod(0o755)

    def real_python(self) -> None:
        """Put this Python on PATH as python3."""
        base = getattr(sys, "_base_executable", sys.executable)
        self.program("python3", f'exec {base} "$@"')

    def quick_python(self) -> None:
        """Put this Python on PATH as python3; its environments share its pip, which takes less."""
        base = getattr(sys, "_base_executable", sys.executable)
        self.program("python3", f'{self.sharing()}exec {base} "$@"')

    def sharing(self) -> str:
        """Return the beginning of a Python whose environments take no seconds to make."""
        return (
            'case "$*" in\n'
            f"*_base_executable*) echo {self.bin}/python3; exit ;;\n"
            '"-m venv "*) set -- -m venv --system-site-packages --without-pip "$3" ;;\n'
            "esac\n"
        )

    def python_without_venv(self, mended: str = "/nonexistent") -> None:
        """Put a Python on PATH that cannot make environments until the file `mended` is there."""
        base = getattr(sys, "_base_executable", sys.executable)
        self.program(
            "python3",
            f'case "$*" in\n'
            f"*ensurepip*) [ -e {mended} ] || exit 1 ;;\n"
            f'esac\n{self.sharing()}exec {base} "$@"',
        )

    def set_up(self, *extras: str) -> subprocess.CompletedProcess[str]:
        """Run the set-up as quickstart does."""
        return subprocess.run(
            ["bash", "-c", SCRIPT, "quickstart", *extras],
            cwd=self.checkout,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


@pytest.fixture
def machine(tmp_path: Path, checkout: Path) -> Machine:
    """A machine with a shell and nothing else."""
    return Machine(tmp_path, checkout)


def user(machine: Machine) -> None:
    """Let the set-up believe that it is not root."""
    (machine.bin / "id").unlink()
    machine.program("id", "echo 1000")


def root(machine: Machine, on_install: str = "") -> None:
    """Let the set-up believe that it is root on Debian; no package is really installed."""
    (machine.bin / "id").unlink()
    machine.program("id", "echo 0")
    machine.program("apt-get", f'[ "$1" = update ] || {{ {on_install or "true"}; }}')


def test_the_environment_is_made_once_and_then_used_as_it_is(machine: Machine) -> None:
    machine.real_python()
    first = machine.set_up("test")
    assert first.returncode == 0, first.stderr
    assert first.stdout.strip() == str(machine.checkout / ".venv/bin/python")
    assert "making a virtual environment" in first.stderr
    again = machine.set_up("test")
    assert (again.returncode, again.stderr) == (0, "")


def test_an_environment_that_was_moved_here_is_made_anew(machine: Machine) -> None:
    machine.quick_python()
    assert machine.set_up().returncode == 0
    moved = machine.checkout.rename(machine.checkout.with_name("elsewhere"))
    machine.checkout = moved
    again = machine.set_up()
    assert again.returncode == 0, again.stderr
    assert "making it anew" in again.stderr
    assert again.stdout.strip() == str(moved / ".venv/bin/python")


def test_an_environment_whose_python_is_gone_is_made_anew(machine: Machine) -> None:
    machine.quick_python()
    assert machine.set_up().returncode == 0
    (machine.checkout / ".venv/bin/python").unlink()
    (machine.checkout / ".venv/bin/python").symlink_to("/nonexistent/python3")
    again = machine.set_up()
    assert again.returncode == 0, again.stderr
    assert "making it anew" in again.stderr


def test_a_folder_of_that_name_that_is_no_environment_is_left_alone(machine: Machine) -> None:
    machine.quick_python()
    (machine.checkout / ".venv").mkdir()
    (machine.checkout / ".venv/precious").touch()
    done = machine.set_up()
    assert done.returncode == 1 and "no virtual environment" in done.stderr
    assert (machine.checkout / ".venv/precious").exists()


def test_without_python_a_user_is_told_which_package_to_ask_for(machine: Machine) -> None:
    user(machine)
    done = machine.set_up()
    assert done.returncode == 1
    assert "ask for: apt-get install python3 python3-venv" in done.stderr


def test_without_ensurepip_a_user_is_told_which_package_to_ask_for(machine: Machine) -> None:
    user(machine)
    machine.python_without_venv()
    done = machine.set_up()
    package = f"python3.{sys.version_info.minor}-venv"
    assert done.returncode == 1
    assert f"ask for: apt-get install {package}" in done.stderr
    assert not (machine.checkout / ".venv").exists()


def test_without_ensurepip_root_installs_the_package(machine: Machine, tmp_path: Path) -> None:
    mended = tmp_path / "mended"
    root(machine, on_install=f": > {mended}")
    machine.python_without_venv(str(mended))
    done = machine.set_up()
    assert done.returncode == 0, done.stderr
    calls = [call for call in machine.calls.read_text().splitlines() if "apt-get" in call]
    assert calls[0] == "apt-get update -qq"
    assert calls[1].endswith(f" python3.{sys.version_info.minor}-venv") and len(calls) == 2


def test_a_package_that_apt_cannot_install_is_named(machine: Machine) -> None:
    root(machine, on_install="echo 'E: Unable to locate package'; exit 100")
    machine.python_without_venv()
    done = machine.set_up()
    assert done.returncode == 1
    assert "E: Unable to locate package" in done.stderr
    assert f"python3.{sys.version_info.minor}-venv" in done.stderr


def test_without_a_network_the_way_out_is_said_and_the_next_run_tries_again(
    machine: Machine, tmp_path: Path
) -> None:
    machine.quick_python()
    machine.require("nowhere-to-be-had>=6.0")
    machine.environment.update(PIP_NO_INDEX="1", PIP_CONFIG_FILE=os.devnull)
    done = machine.set_up()
    assert done.returncode == 1 and "No matching distribution" in done.stderr
    assert "needs the network or a mirror" in done.stderr and "PIP_INDEX_URL" in done.stderr
    again = machine.set_up()
    assert again.returncode == 1 and "needs the network or a mirror" in again.stderr
