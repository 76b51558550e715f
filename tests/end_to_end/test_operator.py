"""The operator's verbs as people and programs use them: init, doctor, deploy, pilot, cron, explain.

Real processes from the checkout, a real sshd, real pilots; the crontab is a program on PATH that
keeps its text in a file.
"""

from __future__ import annotations

import os
import pty
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from integration import sshd
from operating import Operator, call
from world import world

from hpc_batch import config
from hpc_cluster import PROTOCOL

CHECKOUT = Path(__file__).resolve().parents[2]
ON_HPC = CHECKOUT / "on_hpc"
FAKEBIN = CHECKOUT / "tests/fakebin"


@pytest.fixture
def operate(tmp_path: Path) -> Iterator[Operator]:
    with world(tmp_path) as made:
        yield Operator(made, {"PATH": f"{crontab(tmp_path)}:{os.environ['PATH']}"})


def crontab(folder: Path) -> Path:
    """Make a program crontab that keeps its text beside itself; return its folder."""
    place = folder / "cron"
    place.mkdir()
    (place / "crontab").write_text(
        "#!/bin/sh\n"
        f'if [ "$1" = - ]; then cat > {place}/text; exit; fi\n'
        f'[ -f {place}/text ] || {{ echo "no crontab for me" >&2; exit 1; }}\n'
        f"cat {place}/text\n"
    )
    (place / "crontab").chmod(0o700)
    return place


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshd.Sshd]:
    if sshd.MISSING:
        pytest.skip(sshd.MISSING)
    with sshd.running(tmp_path_factory.mktemp("sshd")) as running:
        yield running


def far(server: sshd.Sshd, transport: str, **changes: Any) -> dict[str, Any]:
    """Return a [remote] section that reaches the server."""
    section = {
        "transport": transport,
        "host": "127.0.0.1",
        "port": server.port,
        "user": server.user,
        "key_file": server.key,
        "known_hosts": server.known_hosts,
        "python": sys.executable,
    }
    return {**section, **changes}


# ---- init --------------------------------------------------------------------------------------


def test_init_writes_a_configuration_and_a_dropbox_and_says_what_is_next(tmp_path: Path) -> None:
    ini = tmp_path / "site" / "my.ini"
    ini.parent.mkdir()
    words = ["-c", ini, "init", "--non-interactive", "--set", "remote.host=login.example.org"]
    words += ["--set", "hpc_env.workspace=/scratch/me/w", "--set", "hpc.partition=gpu"]
    words += ["--set", "hpc.prologue=module load a\nmodule load b", "--set", "hpc_env.models=/m"]
    done = call({}, *words)
    assert (done.code, done.out) == (0, f"{ini}\n"), done.err
    assert stat.S_IMODE(ini.stat().st_mode) == 0o600
    made = config.load(ini)
    assert (made.remote.host, made.hpc.partition) == ("login.example.org", "gpu")
    assert made.hpc.prologue == "module load a\nmodule load b"
    assert made.env["scripts"] == "/scratch/me/on_hpc/scripts"
    assert made.env["models"] == "/m"
    assert made.cronjob.dropbox == ini.parent / "dropbox"
    assert made.cronjob.dropbox.is_dir()
    order = [done.err.index(f"-c {ini} {verb}") for verb in ("deploy", "doctor", "cron install")]
    assert order == sorted(order)
    assert sorted(os.listdir(ini.parent)) == ["dropbox", "my.ini"]


def test_init_never_overwrites_and_force_moves_aside(tmp_path: Path) -> None:
    ini = tmp_path / "hpc_batch.ini"
    ini.write_text("precious")
    words = ["-c", ini, "init", "--set", "remote.transport=local"]
    done = call({}, *words)
    assert (done.code, done.out) == (1, "")
    assert "--force" in done.err
    assert ini.read_text() == "precious"
    assert call({}, *words, "--force").code == 0
    assert (tmp_path / "hpc_batch.ini.1").read_text() == "precious"
    assert config.load(ini).remote.transport == "local"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["remote.transport=local", "remote.hots=x"], "did you mean 'host'"),
        (["hpc_env.workspace=/w"], "[remote] host is missing"),
        (["remote.transport=local", "pilot.max=many"], "max = 'many'"),
        (["remote.transport=local", "nope.x=1"], "unknown section [nope]"),
    ],
)
def test_init_writes_nothing_that_is_wrong(tmp_path: Path, settings: list[str], told: str) -> None:
    words = [word for text in settings for word in ("--set", text)]
    done = call({}, "-c", tmp_path / "x.ini", "init", *words)
    assert done.code == 78
    assert told in done.err
    assert "x.ini" not in done.err.split("\n")[0]
    assert os.listdir(tmp_path) == []


def test_init_tried_out_prints_the_text_and_changes_nothing(tmp_path: Path) -> None:
    words = ["-c", tmp_path / "x.ini", "init", "-n", "--set", "remote.transport=local"]
    done = call({}, *words)
    assert done.code == 0
    assert "\ntransport = local\n" in done.out
    assert call({}, "--json", *words).document["dry_run"] is True
    assert os.listdir(tmp_path) == []


def test_init_asks_on_a_terminal_until_an_answer_will_do(tmp_path: Path) -> None:
    ini = tmp_path / "x.ini"
    near, there = pty.openpty()
    command = [sys.executable, CHECKOUT / "tools/hpc-batch", "-c", ini, "init"]
    process = subprocess.Popen(command, stdin=there, stderr=there, stdout=subprocess.DEVNULL)
    os.close(there)
    # host, user, key_file, scheduler, partition, gres, walltime, workspace, scripts, containers,
    # dropbox; what is wrong is asked for again
    os.write(near, b"\nlogin.x\nme\n\nslrum\nslurm\ndl\n\n9h\nrel\n/far/w\n\n\n\n")
    seen = b""
    while process.poll() is None or b"next:" not in seen:
        try:
            seen += os.read(near, 1 << 16)
        except OSError:
            break
    os.close(near)
    assert process.wait(30) == 0, seen.decode()
    made = config.load(ini)
    assert (made.remote.host, made.remote.user, made.hpc.walltime) == ("login.x", "me", 32400)
    assert (made.env["workspace"], made.hpc.gres) == ("/far/w", None)
    for complaint in (b"it is needed", b"did you mean 'slurm'", b"must be an absolute path"):
        assert complaint in seen


# ---- doctor ------------------------------------------------------------------------------------


def test_a_healthy_site_on_this_machine(operate: Operator) -> None:
    done = operate("doctor")
    assert done.code == 0, done.out
    levels = [text.split()[0] for text in done.out.splitlines()]
    assert set(levels) <= {"ok", "warning"}
    (cron,) = [text for text in done.out.splitlines() if " cron " in text]
    assert "cron install" in cron
    assert not operate.world.workspace.exists()


@pytest.mark.parametrize("transport", ["fabric", "openssh"])
def test_a_healthy_site_over_ssh_costs_one_login(
    operate: Operator, server: sshd.Sshd, transport: str
) -> None:
    operate.world.configure(remote=far(server, transport), hpc_env={"scripts": ON_HPC / "scripts"})
    before = server.logins
    code, found = operate.checks()
    assert code == 0, found
    assert server.logins == before + 1
    assert "SSH-2.0" in found["network"]["detail"]
    assert "checkout, hpc_batch" in found["checkout"]["detail"]
    assert "same as here" in found["checkout"]["detail"]


def faults(server: sshd.Sshd, folder: Path) -> dict[str, tuple[str, dict[str, Any], str]]:
    """Return by name: the check that fails, what to change in the ini, and words of the fix."""
    nothing, empty = folder / "nothing", folder / "empty"
    (folder / "file").write_text("")
    (folder / "full").mkdir(exist_ok=True)
    (folder / "full/ready").mkdir(exist_ok=True)
    (folder / "full/ready/x").write_text("")
    empty.write_text("")
    return {
        "port": ("network", {"remote": {"port": 9}}, "firewall"),
        "name": ("network", {"remote": {"host": "nowhere.invalid"}}, "host and port"),
        "unknown host": ("host-key", {"remote": {"known_hosts": empty}}, "fingerprint"),
        "key": ("login", {"remote": {"key_file": server.stranger_key}}, ""),
        "python": ("python", {"remote": {"python": "python0.1"}}, "[remote] python"),
        "no checkout": ("checkout", {"hpc_env": {"scripts": nothing}}, "deploy"),
        "no folder": ("workspace", {"hpc_env": {"workspace": folder / "a/b/c"}}, "workspace"),
        "a file": ("workspace", {"hpc_env": {"workspace": folder / "file"}}, "workspace"),
        "not ours": ("workspace", {"hpc_env": {"workspace": folder / "full"}}, "workspace"),
        "no sbatch": ("scheduler", {"hpc": {"scheduler": "slurm"}}, "[remote] prologue"),
    }


@pytest.mark.parametrize(
    ("fault", "transport"),
    [
        *product(("port", "name", "unknown host", "key", "python"), ("fabric", "openssh")),
        *product(("no checkout", "no folder", "a file", "not ours", "no sbatch"), ("fabric",)),
    ],
)
def test_one_fault_shows_once_with_its_fix(
    operate: Operator, server: sshd.Sshd, transport: str, fault: str
) -> None:
    check, changes, fix = faults(server, operate.world.root)[fault]
    remote = {**far(server, transport), **changes.pop("remote", {})}
    env = {"scripts": ON_HPC / "scripts", **changes.pop("hpc_env", {})}
    operate.world.configure(remote=remote, hpc_env=env, **changes)
    code, found = operate.checks()
    assert code == 1
    wrong = [name for name, row in found.items() if row["level"] in ("error", "unknown")]
    assert wrong == [check], found
    assert fix in (found[check]["fix"] or ""), found[check]
    after = list(found)[list(found).index(check) + 1 :]
    if check in ("network", "host-key", "login", "python", "checkout"):
        chain = [n for n in after if n != "cron"]
        assert {found[name]["level"] for name in chain} == {"skipped"}


def test_a_bad_configuration_is_78_and_nothing_else_is_tried(operate: Operator) -> None:
    operate.world.ini.write_text("[remote]\nhots = x\n")
    code, found = operate.checks()
    assert code == 78
    assert "did you mean 'host'" in found["config"]["detail"]
    assert {row["level"] for name, row in found.items() if name != "config"} == {"skipped"}


def test_a_missing_configuration_names_init(operate: Operator) -> None:
    operate.world.ini.unlink()
    done = operate("doctor")
    assert done.code == 78
    assert "init" in done.out.splitlines()[0]


def test_faults_of_this_side(operate: Operator) -> None:
    operate.world.template("bad", "#!/bin/bash\neval <<x>>\n")
    code, found = operate.checks("--offline")
    assert code == 1
    assert (found["templates"]["level"], found["login"]["level"]) == ("error", "skipped")
    assert "bad" in found["templates"]["detail"]
    operate.world.dropbox.rmdir()
    code, found = operate.checks("--offline", "--only", "dropbox")
    assert (code, list(found)) == (1, ["dropbox"])
    assert found["dropbox"]["fix"].startswith("mkdir")


def test_a_scheduler_that_does_not_answer_is_unknown(operate: Operator, tmp_path: Path) -> None:
    operate.world.configure(hpc={"scheduler": "slurm"})
    operate.environment["PATH"] = f"{FAKEBIN}:{operate.environment['PATH']}"
    memory = tmp_path / "slurm"
    memory.mkdir()
    operate.environment.update(FAKE_BATCH=str(memory), FAKE_LIST="away")
    code, found = operate.checks("--only", "scheduler")
    assert (code, list(found)) == (1, ["scheduler"])
    assert found["scheduler"]["level"] == "unknown"
    assert "timed out" in found["scheduler"]["detail"]
    operate.environment.pop("FAKE_LIST")
    assert operate.checks("--only", "scheduler")[0] == 0


def test_an_unknown_check_is_met_with_all_there_are(operate: Operator) -> None:
    done = operate("doctor", "--only", "magic")
    assert done.code == 2
    assert "scheduler" in done.err


def test_another_protocol_on_the_cluster_is_a_clear_message(
    operate: Operator, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs"
    subprocess.run(["cp", "-r", ON_HPC, theirs], check=True)
    package = theirs / "hpc_cluster/__init__.py"
    package.write_text(
        package.read_text().replace(f"\nPROTOCOL = {PROTOCOL}\n", "\nPROTOCOL = 9\n")
    )
    operate.world.configure(hpc_env={"scripts": theirs / "scripts"})
    code, found = operate.checks("--only", "checkout")
    assert code == 1
    assert "(protocol 9)" in found["checkout"]["detail"]
    assert "update this service host" in found["checkout"]["fix"]
    operate.world.drop("x", "say", args={"words": "x"})
    done = operate("pass")
    assert done.code == 78
    assert "(protocol 9)" in done.err
    assert "update the service host" in done.err


def test_the_deep_doctor_runs_a_job_and_leaves_nothing(operate: Operator) -> None:
    shipped = CHECKOUT / "templates/self_test.template"
    done = operate("doctor", "--deep")
    assert done.code == 1
    assert "self_test" in done.out
    (operate.world.templates / shipped.name).write_bytes(shipped.read_bytes())
    done = operate("doctor", "--deep")
    assert done.code == 0, done.out + done.err
    (deep,) = [text for text in done.out.splitlines() if " deep " in text]
    assert os.uname().nodename in deep
    assert "deep: dropped" in done.err
    assert [n for n in os.listdir(operate.world.dropbox) if n != ".hpc_batch"] == []
    assert os.listdir(operate.world.workspace / "jobs") == []


def test_a_deep_doctor_that_waits_too_long_cancels_its_job(
    operate: Operator, tmp_path: Path
) -> None:
    shipped = CHECKOUT / "templates/self_test.template"
    (operate.world.templates / shipped.name).write_bytes(shipped.read_bytes())
    operate.world.configure(hpc={"scheduler": "slurm"})
    (tmp_path / "slurm").mkdir()
    operate.environment["PATH"] = f"{FAKEBIN}:{operate.environment['PATH']}"
    operate.environment.update(FAKE_BATCH=str(tmp_path / "slurm"), FAKE_SUBMIT="hold")
    done = operate("doctor", "--only", "deep", "--timeout", "3s")
    assert done.code == 1
    assert "Resources" in done.out
    assert "--timeout" in done.out
    assert [n for n in os.listdir(operate.world.dropbox) if n != ".hpc_batch"] == []
    assert operate.world.records() == []


def test_the_deep_doctor_does_not_wait_for_a_paused_service(operate: Operator) -> None:
    shipped = CHECKOUT / "templates/self_test.template"
    (operate.world.templates / shipped.name).write_bytes(shipped.read_bytes())
    operate("pause", "for now")
    done = operate("doctor", "--only", "deep")
    assert done.code == 1
    assert "resume" in done.out


# ---- deploy ------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["local", "fabric", "openssh"])
def test_deploy_then_everything_works(
    operate: Operator, request: pytest.FixtureRequest, transport: str
) -> None:
    scripts = operate.world.root / "far away/on_hpc/scripts"
    remote = {"transport": "local"}
    if transport != "local":
        remote = far(request.getfixturevalue("server"), transport)
    operate.world.configure(remote=remote, hpc_env={"scripts": scripts})
    tried = operate("deploy", "-n")
    assert (tried.code, "would bring" in tried.out) == (0, True), tried.err
    assert not scripts.parent.exists()
    done = operate("--json", "deploy")
    assert done.code == 0, done.err
    assert done.document["done"] == "deployed"
    assert done.document["before"]["kind"] == "missing"
    assert operate("--json", "deploy").document["done"] == "nothing"
    code, found = operate.checks("--only", "checkout,workspace")
    assert (code, found["checkout"]["level"]) == (0, "ok"), found
    target = operate.world.drop_copy("x")
    operate.world.until("x")
    assert target.read_text() == "hello"


def test_a_checkout_is_not_deployed_over(operate: Operator) -> None:
    far_away = operate.world.root / "far"
    subprocess.run(["cp", "-r", ON_HPC, far_away], check=True)
    (far_away / ".git").mkdir()
    operate.world.configure(hpc_env={"scripts": far_away / "scripts"})
    same = operate("deploy")
    assert (same.code, "already (checkout)" in same.out) == (0, True)
    with open(far_away / "hpc_cluster/clock.py", "a") as file:
        file.write("# changed\n")
    code, found = operate.checks("--only", "checkout")
    assert (code, found["checkout"]["level"]) == (0, "warning")
    assert "git pull" in found["checkout"]["fix"]
    done = operate("deploy")
    assert done.code == 1
    assert "git pull" in done.err
    assert not (far_away / "scripts").is_symlink()
    forced = operate("deploy", "--force")
    assert forced.code == 0, forced.err
    assert "what was there is" in forced.out
    assert operate("deploy").out.endswith("already (deployed)\n")


def test_an_older_release_is_not_deployed_over_a_newer_one(operate: Operator) -> None:
    scripts = operate.world.root / "far/scripts"
    operate.world.configure(hpc_env={"scripts": scripts})
    assert operate("deploy").code == 0
    package = scripts.resolve().parent / "hpc_cluster/__init__.py"
    package.write_text(package.read_text().replace('VERSION = "0.', 'VERSION = "7.'))
    done = operate("deploy")
    assert done.code == 1
    assert "newer" in done.err
    assert operate("deploy", "--force").code == 0


# ---- pilot -------------------------------------------------------------------------------------


def test_pilots_are_submitted_shown_and_cancelled(operate: Operator) -> None:
    operate.world.configure(pilot={"linger": 60})
    assert operate("pilot").err == "there is no pilot\n"
    assert operate("pilot", "cancel", "--yes").code == 0
    assert "would submit a pilot" in operate("pilot", "submit", "-n").out
    done = operate("pilot", "submit")
    assert done.code == 0, done.err
    native_id = done.out.strip()
    assert len(operate.world.pilots()) == 1
    full = operate("pilot", "submit")
    assert full.code == 1
    assert "[pilot] max = 1" in full.err
    (shown,) = operate("--json", "pilot", "show").document["pilots"]
    assert (shown["native_id"], shown["state"]) == (native_id, "running")
    assert native_id in operate("pilot", "show").out
    refused = operate("pilot", "cancel")
    assert (refused.code, "--yes" in refused.err) == (2, True)
    assert operate("pilot", "cancel", "nobody", "--yes").code == 1
    assert operate("pilot", "cancel", "-n").code == 0
    assert len(operate.world.pilots()) == 1
    gone = operate("pilot", "cancel", native_id, "--yes")
    assert (gone.code, gone.out) == (0, f"{native_id}: asked\n"), gone.err
    end = time.monotonic() + 30
    while operate.world.pilots() and time.monotonic() < end:
        time.sleep(0.1)
    assert operate("--json", "pilot").document == {
        "schema": "hpc_batch.pilot/1",
        "pilots": [],
        "trouble": None,
    }


def test_a_job_survives_the_cancellation_of_its_pilot(operate: Operator) -> None:
    out = operate.world.out / "slept"
    operate.world.drop("x", "sleep", args={"seconds": "1.5"}, output_map={"target": str(out)})
    operate.world.sweep()
    end = time.monotonic() + 30
    while not list(operate.world.workspace.glob("running/*")):
        assert time.monotonic() < end, operate.world.picture()
        time.sleep(0.05)
    assert operate("pilot", "cancel", "--yes").code == 0
    node = operate.world.until("x")["x"]
    assert (node["status"], out.read_text()) == ("ok", "slept\n")
    assert node["attempts"] <= 2


# ---- cron --------------------------------------------------------------------------------------


def test_the_cron_line_comes_once_and_goes_again(operate: Operator) -> None:
    text = operate.world.root / "cron/text"
    text.write_text("MAILTO=ops\n")
    tried = operate("cron", "install", "-n")
    assert (tried.code, tried.out) == (0, "would be installed\n")
    assert "+# hpc_batch begin" in tried.err
    assert text.read_text() == "MAILTO=ops\n"
    done = operate("cron", "install", "--every", "5m")
    assert (done.code, done.out) == (0, "installed\n")
    again = operate("cron", "install", "--every", "5m")
    assert (again.out, again.err) == ("is installed already\n", "")
    shown = operate("cron", "show").out
    assert f"/tools/hpc_submitter {operate.world.ini}" in shown
    assert shown.split()[0].endswith("-59/5")
    code, found = operate.checks("--only", "cron")
    assert (code, found["cron"]["level"]) == (0, "ok")
    line = operate("--json", "cron", "install", "--every", "1m").document["line"]
    assert line.startswith("* * * * * /")
    command = line.split(" ", 5)[5]
    cron = {"PATH": "/usr/bin:/bin", "HOME": str(operate.world.root)}
    run = subprocess.run(["/bin/sh", "-c", command], env=cron, capture_output=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")
    assert operate.world.status()["pass"]["code"] == 0
    assert operate("cron", "remove").out == "removed\n"
    assert text.read_text() == "MAILTO=ops\n"
    assert operate("cron", "remove").out == "is not installed\n"


def test_without_a_crontab_the_line_is_shown_for_who_may_install_it(operate: Operator) -> None:
    (operate.world.root / "cron/crontab").write_text("#!/bin/sh\necho 'not allowed' >&2; exit 1\n")
    done = operate("cron", "install")
    assert done.code == 78
    assert "not allowed" in done.err
    assert str(operate.world.ini) in done.err


# ---- explain -----------------------------------------------------------------------------------


def explained(operate: Operator, name: str = "x") -> dict[str, Any]:
    done = operate("--json", "explain", name)
    assert done.code == 0, done.err
    (row,) = done.document["jobs"]
    assert isinstance(row, dict)
    return row


def test_a_job_is_explained_on_its_way(operate: Operator) -> None:
    operate.world.drop(
        "x", "sleep", args={"seconds": "2"}, output_map={"target": "/nowhere/at/all"}
    )
    assert "no pass has run yet" in explained(operate)["why"]
    operate.world.drop_text("slow", "script: say\nargs: {words: 1}")
    operate.world.sweep()
    waiting = explained(operate, "slow")
    assert "settled" in waiting["why"]
    seen = {explained(operate)["state"]}
    end = time.monotonic() + 60
    while "returning" not in seen and "error" not in seen:
        assert time.monotonic() < end, operate.world.picture()
        operate.world.sweep()
        row = explained(operate)
        seen.add(row["state"])
        if row["state"] == "running":
            assert "running" in row["why"]
            assert "logs -f x" in row["next"]
        time.sleep(0.2)
    assert "/nowhere/at/all" in explained(operate)["why"]
    text = operate("explain", "x").out
    assert text.startswith("x.job is ")
    assert "\n  next: " in text


def test_a_job_waits_for_a_pilot_and_the_scheduler_says_why(
    operate: Operator, tmp_path: Path
) -> None:
    operate.world.configure(hpc={"scheduler": "slurm"})
    (tmp_path / "slurm").mkdir()
    operate.environment["PATH"] = f"{FAKEBIN}:{operate.environment['PATH']}"
    operate.environment.update(FAKE_BATCH=str(tmp_path / "slurm"), FAKE_SUBMIT="hold")
    operate.world.drop("x", "say", args={"words": "x"})
    operate("pass")
    assert "submitted" in explained(operate)["why"]
    operate("pass")
    row = explained(operate)
    assert "the scheduler says Resources (it is next" in row["why"]


def test_a_refused_pilot_a_pause_and_a_lost_cluster_are_told(
    operate: Operator, tmp_path: Path
) -> None:
    operate.world.configure(hpc={"scheduler": "slurm"})
    (tmp_path / "slurm").mkdir()
    operate.environment["PATH"] = f"{FAKEBIN}:{operate.environment['PATH']}"
    operate.environment.update(FAKE_BATCH=str(tmp_path / "slurm"), FAKE_SUBMIT="refuse")
    operate.world.drop("x", "say", args={"words": "x"})
    operate("pass")
    row = explained(operate)
    assert "Invalid account" in row["why"]
    assert "pilot submit" in row["next"]
    operate("pause", "maintenance")
    operate("pass")
    operate.world.drop("y", "say", args={"words": "y"})
    row = explained(operate, "y")
    assert "paused: maintenance" in row["why"]
    operate.world.configure(remote={"python": "/nowhere/python"}, hpc={"scheduler": "slurm"})
    operate("pass")
    row = explained(operate)
    assert "the cluster cannot be used" in row["why"]
    assert any("/nowhere/python" in text for text in row["evidence"])
