"""Deploying on_hpc: editions side by side, one link, over every transport."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from hpc_batch import config, deployment, errand, far_end, hosts, session
from hpc_batch.config import Config, Cronjob, Hpc, Limits, Pilot, Remote
from hpc_batch.deployment import Edition
from hpc_batch.errors import FarEndError
from hpc_cluster import edition, landing


def configured(remote: Remote, folder: Path) -> Config:
    """Return a configuration whose SCRIPTS lies in a folder that is not there yet."""
    chosen = replace(remote, python=sys.executable)
    cronjob = Cronjob(folder / "dropbox", folder / "templates", folder / "state")
    env = {"scripts": str(folder / "far/on_hpc/scripts"), "workspace": str(folder / "workspace")}
    path = folder / "hpc_batch.ini"
    return config.Config(path, chosen, Hpc(), Pilot(), cronjob, Limits(), env)


@pytest.fixture
def ours() -> Edition:
    return deployment.edition()


def other(ours: Edition, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Edition:
    """Return another edition: this one with a comment more."""
    far = tmp_path / "other"
    subprocess.run(["cp", "-r", Path(edition.__file__).parents[1], far], check=True)
    with open(far / "hpc_cluster/clock.py", "a") as file:
        file.write("# another edition\n")
    import hpc_cluster

    with monkeypatch.context() as patch:
        patch.setattr(hpc_cluster, "__file__", str(far / "hpc_cluster/__init__.py"))
        made = deployment.edition()
    assert made.digest != ours.digest
    return made


def test_a_deployed_edition_serves_sessions(remote: Remote, tmp_path: Path, ours: Edition) -> None:
    here = configured(remote, tmp_path)
    scripts = Path(here.env["scripts"])
    host = hosts.connect(here.remote)
    try:
        assert deployment.examine(host, here).kind == "missing"
        done = deployment.deploy(host, here, ours, replace=False)
        assert (done["switched"], done["aside"]) == (True, None)
        found = deployment.examine(host, here)
        assert (found.kind, found.digest, found.usable, found.fits) == (
            "deployed",
            ours.digest,
            True,
            True,
        )
        with session.begin(host, here.remote, here.env, "0123abcd") as opened:
            assert opened.hello().made
        again = deployment.deploy(host, here, ours, replace=False)
        assert (again["switched"], again["unpacked"]) == (False, False)
        assert host.logins == 1
    finally:
        host.close()
    assert scripts.is_symlink()
    assert os.access(scripts / "hpc_session", os.X_OK)
    assert (scripts / "../hpc_cluster/session.py").is_file()
    assert not list(tmp_path.rglob("*.new"))


def test_a_new_edition_takes_the_link_and_old_ones_stay_for_a_while(
    tmp_path: Path, ours: Edition, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = configured(Remote(transport="local"), tmp_path)
    theirs = other(ours, monkeypatch, tmp_path)
    host = hosts.connect(here.remote)
    deployment.deploy(host, here, ours, replace=False)
    done = deployment.deploy(host, here, theirs, replace=False)
    assert done["before"]["digest"] == ours.digest
    assert deployment.examine(host, here).digest == theirs.digest
    folder = Path(here.env["scripts"]).parent / "editions"
    assert {p.name for p in folder.iterdir()} == {ours.name, theirs.name}
    for number in range(4):
        (folder / f"0.0.{number}-000000000000").mkdir()
        os.utime(folder / f"0.0.{number}-000000000000", (number, number))
    for name, age_s in (("0.0.9-killed.1234.new", 7200), ("0.0.9-at_work.1234.new", 60)):
        (folder / name).mkdir()
        os.utime(folder / name, (time.time() - age_s,) * 2)
    deployment.deploy(host, here, ours, replace=False)
    assert {p.name for p in folder.iterdir()} == {
        ours.name,
        theirs.name,
        "0.0.3-000000000000",
        "0.0.9-at_work.1234.new",
    }
    host.close()


def test_an_edition_that_somebody_changed_is_unpacked_again(tmp_path: Path, ours: Edition) -> None:
    here = configured(Remote(transport="local"), tmp_path)
    host = hosts.connect(here.remote)
    deployment.deploy(host, here, ours, replace=False)
    damaged = Path(here.env["scripts"]).resolve().parent / "hpc_cluster/clock.py"
    damaged.write_text("import nonsense\n")
    assert deployment.examine(host, here).digest != ours.digest
    done = deployment.deploy(host, here, ours, replace=False)
    assert (done["unpacked"], done["switched"]) == (True, False)
    assert deployment.examine(host, here).digest == ours.digest
    host.close()


@pytest.mark.parametrize("kind", ["checkout", "plain"])
def test_what_was_not_deployed_is_not_replaced_unless_that_is_permitted(
    tmp_path: Path, ours: Edition, kind: str
) -> None:
    here = configured(Remote(transport="local"), tmp_path)
    scripts = Path(here.env["scripts"])
    scripts.mkdir(parents=True)
    (scripts / "mine").write_text("precious")
    if kind == "checkout":
        (tmp_path / "far/.git").mkdir()
    host = hosts.connect(here.remote)
    assert deployment.examine(host, here).kind == kind
    with pytest.raises(FarEndError, match=kind) as caught:
        deployment.deploy(host, here, ours, replace=False)
    assert caught.value.kind == "deploy"
    assert [p.name for p in scripts.parent.iterdir()] == ["scripts"]
    done = deployment.deploy(host, here, ours, replace=True)
    assert (Path(done["aside"]) / "mine").read_text() == "precious"
    assert deployment.examine(host, here).digest == ours.digest
    host.close()


def test_what_arrives_damaged_is_not_used(tmp_path: Path, ours: Edition) -> None:
    scripts = tmp_path / "far/scripts"
    wrong = {**ours.facts(), "digest": "0" * 12}
    with pytest.raises(landing.LandingError, match="damaged"):
        landing.land(str(scripts), ours.archive, wrong, False)
    assert os.listdir(tmp_path / "far") == ["editions"]
    assert os.listdir(tmp_path / "far/editions") == []


def test_two_landings_of_the_same_at_the_same_time_are_both_content(
    tmp_path: Path, ours: Edition
) -> None:
    scripts = str(tmp_path / "far/scripts")
    with ThreadPoolExecutor(4) as pool:
        done = [
            pool.submit(landing.land, scripts, ours.archive, ours.facts(), False) for _ in range(4)
        ]
        assert {one.result()["before"]["kind"] for one in done} <= {"missing", "deployed"}
    assert edition.describe(scripts)["digest"] == ours.digest


def test_landing_killed_before_any_of_its_effects_is_completed_by_the_next(
    tmp_path: Path, ours: Edition
) -> None:
    """Before each effect on the disk a process is killed; then SCRIPTS is usable, or missing."""
    program = (
        "import os, sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from hpc_cluster import durable, effects, landing\n"
        "left = [int(sys.argv[2])]\n"
        "def dying(act):\n"
        "    def wrapped(*args, **more):\n"
        "        left[0] -= 1\n"
        "        if left[0] < 0: os._exit(9)\n"
        "        return act(*args, **more)\n"
        "    return wrapped\n"
        "for room, names in (\n"
        "    (effects, 'rename symlink mkdir write'),\n"
        "    (durable, 'sync_files sync_folders'),\n"
        "):\n"
        "    for name in names.split():\n"
        "        setattr(room, name, dying(getattr(room, name)))\n"
        "landing.land(sys.argv[3], open(sys.argv[4], 'rb').read(), eval(sys.argv[5]), False)\n"
    )
    (tmp_path / "archive").write_bytes(ours.archive)
    scripts = tmp_path / "far/on_hpc/scripts"
    on_hpc = str(Path(landing.__file__).parents[1])
    words = [on_hpc, "N", str(scripts), str(tmp_path / "archive"), repr(ours.facts())]
    for number in [0, 1, 2, 3, 4, 8, *range(40, 60), 200]:
        words[1] = str(number)
        code = subprocess.run([sys.executable, "-c", program, *words], check=False).returncode
        if code == 0:
            break
        assert code == 9
        state = edition.describe(str(scripts))
        assert state["kind"] == "missing" or state["digest"] == ours.digest
    landing.land(str(scripts), ours.archive, ours.facts(), False)
    assert edition.describe(str(scripts))["digest"] == ours.digest
    left = [p.name for p in (scripts.parent / "editions").iterdir()]
    assert [name for name in left if not name.endswith(".new")] == [ours.name]


def test_an_errand_tells_what_went_wrong_there(remote: Remote) -> None:
    chosen = replace(remote, python=sys.executable)
    host = hosts.connect(chosen)
    answer = errand.run(host, chosen, "RESULT = [ARGUMENTS, len(PAYLOAD)]", {"a": "é'\n"}, b"x\0")
    assert answer == [{"a": "é'\n"}, 2]
    with pytest.raises(FarEndError, match="no such thing") as caught:
        errand.run(host, chosen, "raise ValueError('no such thing')", {})
    assert caught.value.kind == "ValueError"
    with pytest.raises(FarEndError, match="has no nowhere") as missing:
        errand.run(host, replace(chosen, python="nowhere"), "RESULT = 1", {})
    assert missing.value.kind == "python"
    host.close()


def test_a_python_that_is_too_old_refuses_an_errand(tmp_path: Path) -> None:
    old = tmp_path / "python"
    fake = "import sys\nsys.version_info = (2, 7, 5)\nsys.argv = sys.argv[1:]\nexec(sys.argv[1])\n"
    (tmp_path / "old.py").write_text(fake)
    old.write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path}/old.py "$@"\n')
    old.chmod(0o700)
    remote = Remote(transport="local", python=str(old))
    host = hosts.connect(remote)
    with pytest.raises(FarEndError, match=r"2\.7") as caught:
        errand.run(host, remote, "RESULT = 1", {})
    assert caught.value.kind == "python"
    host.close()


@pytest.mark.parametrize(
    ("theirs", "hint"), [(99, "update the service host"), (0, "hpc-batch deploy")]
)
def test_a_protocol_that_does_not_fit_says_which_side_to_update(
    tmp_path: Path, theirs: int, hint: str
) -> None:
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "hpc_session").write_text(
        "import json\n"
        f"print('\\x1eHPC_BATCH ' + json.dumps({{'protocol': {theirs}, 'accepts': [{theirs}], "
        "'version': '9.9', 'python': '3.6.8'}), flush=True)\n"
        "input()\n"
    )
    remote = Remote(transport="local", python=sys.executable)
    env = {"scripts": str(scripts), "workspace": str(tmp_path / "w")}
    host = hosts.connect(remote)
    line = far_end.command(remote, env, "serve", "0" * 16, "0123abcd")
    with pytest.raises(FarEndError, match=r"9\.9 \(protocol") as caught:
        far_end.start(host, line, remote, env)
    assert hint in caught.value.hint
    host.close()
