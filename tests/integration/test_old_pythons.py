"""The cluster's side under every Python of this machine, down to 3.6: the whole main loop."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from world import world

VERSIONS = [f"3.{minor}" for minor in range(6, 15)]


def interpreter(version: str) -> str:
    """Return the path of a Python of this version, or skip."""
    places = Path.home().glob(f".pyenv/versions/{version}.*/bin/python3")
    for program in [*places, shutil.which(f"python{version}")]:
        asked = [program or "false", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        if done.stdout.strip() == version:
            return str(program)
    pytest.skip(f"Python {version} is not on this machine")


@pytest.mark.parametrize("version", VERSIONS)
def test_the_clusters_side_runs_under(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = interpreter(version)
    # Clusters often have the C locale, where old Pythons cannot name files outside ASCII.
    monkeypatch.setenv("LC_ALL", "C")
    source = os.fsdecode(os.fsencode(tmp_path) + "/it's «ä».wav".encode())
    Path(source).write_bytes(b"sound")
    with world(tmp_path / "world", remote={"python": python}) as here:
        here.template(
            "look", "#!/bin/sh\nset -e\nreadlink -f /proc/$PPID/exe\ncp ./<<audio>> <<made>>\n"
        )
        target = tmp_path / "out «ü».wav"
        here.drop("one", "look", input_map={"audio": source}, output_map={"made": str(target)})
        here.drop("bad", "fail")
        here.drop("none", "nothing", output_map={"target": str(tmp_path / "never")})
        answers = here.until("one", "bad", "none")
    assert answers["one"]["status"] == "ok", answers["one"]
    assert answers["one"]["stdout"].strip() == os.path.realpath(python)
    assert target.read_bytes() == b"sound"
    assert (answers["bad"]["reason"], answers["bad"]["rc"]) == ("exit_code", 3)
    assert answers["none"]["reason"] == "stage_out"
