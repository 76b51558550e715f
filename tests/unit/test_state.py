"""Whose the state folder is, and who holds it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from world import World

from hpc_batch.errors import ConfigError
from hpc_batch.state import Busy, hold
from hpc_cluster import effects

KILLED = """\
import os, subprocess, sys
from pathlib import Path
from hpc_batch import config
from hpc_batch.state import hold
with hold(config.load(Path(sys.argv[1]))) as state:
    locks = state.lock_descriptors
    child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, pass_fds=locks)
    print(child.pid, flush=True)
    os._exit(0)
"""
"""A pass that is killed while a child of it carries files."""


@pytest.mark.parametrize("which", ["state", "inner"])
def test_a_state_that_others_may_read_is_refused(tmp_path: Path, which: str) -> None:
    here = World(tmp_path)
    with hold(here.config) as state:
        folder = {"state": state.folder, "inner": state.inner}[which]
    folder.chmod(0o750)
    with pytest.raises(ConfigError, match="must be private"), hold(here.config):
        pass
    folder.chmod(0o700)
    with hold(here.config):
        pass


def test_the_state_of_one_dropbox_is_refused_for_another(tmp_path: Path) -> None:
    """Both are of this machine, and were in use equally long."""
    one, other = World(tmp_path / "one"), World(tmp_path / "other")
    for here in (one, other):
        with hold(here.config) as state:
            state.begin()
            state.end()
    one.configure(cronjob={"state": other.state})
    with hold(one.config) as state, pytest.raises(ConfigError, match="do not belong together"):
        state.begin()


def test_what_a_pass_could_not_rename_goes_with_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, real = World(tmp_path), effects.rename

    def rename(source: Any, target: Any) -> None:
        if os.fsdecode(target).endswith("/trouble.json"):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        real(source, target)

    monkeypatch.setattr(effects, "rename", rename)
    with hold(here.config) as state:
        state.begin()
        with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
            state.show("trouble.json", {"a trouble": {}})
        assert "trouble.json.new" in os.listdir(here.state)
    with hold(here.config) as state:
        state.begin()
    assert "trouble.json.new" not in os.listdir(here.state)


def test_a_lock_is_free_only_when_the_transfers_of_a_killed_pass_are_gone(
    tmp_path: Path, checkout: Path
) -> None:
    here = World(tmp_path)
    path = os.pathsep.join([str(checkout / "tools"), str(checkout / "on_hpc")])
    done = subprocess.run(
        [sys.executable, "-c", KILLED, here.ini],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    child = int(done.stdout)
    try:
        with pytest.raises(Busy), hold(here.config):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
    with hold(here.config, patience_s=60):
        pass
