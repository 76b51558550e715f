"""The wheel works by itself: built from a copy, installed elsewhere, run without a checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

PACKED = ["LICENSE", "README.md", "pyproject.toml", "setup.cfg", "on_hpc", "templates", "tools"]
IGNORED = shutil.ignore_patterns("__pycache__", "*.egg-info", "workspace")
DEADLINE_S = 60


def run(*command: str | Path, cwd: Path, path: str = os.defpath) -> str:
    """Run a program with an environment that knows nothing of the checkout; return its output."""
    keep = {k: v for k, v in os.environ.items() if k.startswith("PIP_") or k == "TMPDIR"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**keep, "PATH": path, "HOME": str(cwd), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment that holds the wheel and sees the packages it requires."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in PACKED:
        place = checkout / name
        if place.is_dir():
            shutil.copytree(place, source / name, ignore=IGNORED)
        else:
            shutil.copy(place, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", "made", source, cwd=folder)
    (wheel,) = (folder / "made").glob("hpc_batch-*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", "venv", cwd=folder)
    here = folder / "venv/bin/python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run(here, "-c", ask, cwd=folder).strip())
    (packages / "requirements.pth").write_text(run(sys.executable, "-c", ask, cwd=folder))
    run(*pip, "--python", here, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    return here.parent


def test_the_wheel_holds_both_sides_and_the_templates(installed: Path, tmp_path: Path) -> None:
    program = (
        "import hpc_batch, hpc_cluster.batch, hpc_submit, pathlib\n"
        "templates = pathlib.Path(hpc_batch.__file__).parent / 'templates'\n"
        "print(hpc_batch.__file__, *sorted(t.name for t in templates.iterdir()))\n"
    )
    place, *templates = run(installed / "python", "-c", program, cwd=tmp_path).split()
    assert place.startswith(str(installed.parent))
    assert "my_container.template" in templates and "segment_sound.template" in templates


@pytest.mark.parametrize("program", ["hpc-batch", "hpc_submitter"])
def test_the_installed_programs_explain_themselves(
    installed: Path, tmp_path: Path, program: str
) -> None:
    assert "usage" in run(installed / program, "--help", cwd=tmp_path)


def test_the_sample_job_runs_from_the_wheel(
    installed: Path, checkout: Path, tmp_path: Path
) -> None:
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    shutil.copy(checkout / "tests/fakebin/singularity", bin_folder)
    (tmp_path / "dropbox").mkdir()
    media = tmp_path / "media"
    media.mkdir()
    (media / "foo.mp3").write_bytes(b"not really music")
    config = tmp_path / "hpc_batch.ini"
    config.write_text(
        f"""\
[remote]
transport = local
[hpc]
scheduler = local
[pilot]
linger = 0
[cronjob]
dropbox = {tmp_path}/dropbox
[hpc_env]
workspace = {tmp_path}/workspace
containers = /srv/containers
"""
    )
    (tmp_path / "dropbox/thing.job").write_text(
        f"""\
script: my_container
args:
    level: 6
input_map:
    input: {media}/foo.mp3
output_map:
    json_output: {media}/foo.json
    txt_output: {media}/foo.txt
...
"""
    )
    answer = tmp_path / "dropbox/thing.job.finished"
    deadline = time.monotonic() + DEADLINE_S
    while not answer.exists():
        assert time.monotonic() < deadline, run("find", tmp_path, cwd=tmp_path)
        path = f"{bin_folder}:{os.defpath}"
        run(installed / "hpc-batch", "-c", config, "pass", cwd=tmp_path, path=path)
        time.sleep(0.2)

    node = yaml.safe_load(answer.read_text())["job"]
    assert (node["status"], node["rc"], node["reason"]) == ("ok", 0, "completed"), node
    assert json.loads((media / "foo.txt").read_text())["inputs"] == {"foo.mp3": 16}
    assert (media / "foo.json").exists()
    (call,) = map(json.loads, (bin_folder / "singularity.calls").read_text().splitlines())
    bound = call[3]
    assert bound.startswith(f"{tmp_path}/workspace/jobs/{node['id']}/") and bound.endswith(":/mnt")
    assert call == [
        *["run", "--nv", "--bind", bound, "/srv/containers/my_container.sif", "--level=6"],
        *["/mnt/foo.mp3", "/mnt/foo.txt", "/mnt/foo.json"],
    ]


def test_the_installed_program_deploys_the_same_edition_as_the_checkout(
    installed: Path, checkout: Path, tmp_path: Path
) -> None:
    config, program = tmp_path / "x.ini", installed / "hpc-batch"
    words = ["--set", "remote.transport=local", "--set", f"hpc_env.scripts={tmp_path}/far/scripts"]
    words += ["--set", "hpc.scheduler=local"]
    run(program, "-c", config, "init", *words, cwd=tmp_path)
    told = json.loads(run(program, "-c", config, "--json", "deploy", cwd=tmp_path))
    assert told["done"] == "deployed"
    same = [sys.executable, checkout / "tools/hpc-batch", "-c", config, "--json", "deploy", "-n"]
    assert json.loads(run(*same, cwd=tmp_path))["done"] == "nothing"
    checks = json.loads(run(program, "-c", config, "--json", "doctor", cwd=tmp_path))["checks"]
    found = {row["check"]: row["level"] for row in checks}
    assert (found["checkout"], found["workspace"], found["scheduler"]) == ("ok", "ok", "ok")
    shown = json.loads(
        run(program, "-c", config, "--json", "cron", "show", cwd=tmp_path, path=cron(tmp_path))
    )
    assert f" {installed}/hpc_submitter {config}" in shown["would_be"]


def cron(folder: Path) -> str:
    """Return a PATH with a crontab program that knows of no crontab."""
    (folder / "cron").mkdir()
    (folder / "cron/crontab").write_text("#!/bin/sh\necho 'no crontab for me' >&2\nexit 1\n")
    (folder / "cron/crontab").chmod(0o700)
    return f"{folder}/cron:{os.defpath}"
