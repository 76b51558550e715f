"""The command line as people and programs use it: real processes, from the checkout."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from world import World, world

import hpc_submit
from hpc_batch import Dropbox, InfrastructureError, JobError, jobfile
from hpc_batch.session import Session
from hpc_batch.tidings import Tail

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@dataclass
class Done:
    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value

    @property
    def error(self) -> dict[str, Any]:
        value = json.loads(self.err.splitlines()[-1])["error"]
        assert isinstance(value, dict)
        return value


def call(
    *argv: str | Path | bytes, program: str = "hpc-batch", stdin: bytes = b"", **more: str
) -> Done:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HPC_BATCH_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", TOOLS / program, *argv],
        input=stdin,
        capture_output=True,
        env={**environment, **more},
        timeout=120,
        check=False,
    )
    out, err = (text.decode("utf-8", "surrogateescape") for text in (done.stdout, done.stderr))
    assert "Traceback" not in err, err
    return Done(done.returncode, out, err)


@dataclass
class Shell:
    """Commands that are about one world."""

    world: World

    def __call__(self, *argv: str | Path | bytes, stdin: bytes = b"") -> Done:
        return call("-c", self.world.ini, *argv, stdin=stdin)

    def file(self, name: str, text: str | None = None) -> Path:
        """Make a job file, by default one that is right."""
        path = self.world.root / name
        path.write_text(text or "script: say\nargs:\n    words: 010\n")
        return path

    def answer(self, name: str = "x", **parts: Any) -> dict[str, Any]:
        """Drop a job and run passes until it is answered."""
        self.world.drop(name, **parts)
        return self.world.until(name)[name]

    def names(self) -> list[str]:
        return sorted(n for n in os.listdir(self.world.dropbox) if n != ".hpc_batch")


@pytest.fixture
def sh(tmp_path: Path) -> Iterator[Shell]:
    with world(tmp_path) as made:
        yield Shell(made)


# ---- submit ----------------------------------------------------------------------------------


def test_submit_drops_files_under_their_own_names_and_prints_them(sh: Shell) -> None:
    done = sh("submit", sh.file("a.job"), sh.file("b.job"))
    assert (done.code, done.out, done.err) == (0, "a.job\nb.job\n", "")
    assert sh.names() == ["a.job", "b.job"]
    assert jobfile.settled((sh.world.dropbox / "a.job").read_bytes()) == "end"
    nodes = sh.world.until("a", "b")
    assert nodes["a"]["stdout"] == "010\n"


def test_submit_reads_stdin_and_gives_it_a_name(sh: Shell) -> None:
    data = b"script: say\nargs: {words: 1}\n"
    done = sh("submit", "-", stdin=data)
    assert done.code == 0
    assert done.out.startswith("stdin-")
    named = sh("submit", "-", "--name", "mine", stdin=data)
    assert named.out == "mine.job\n"
    assert sh.names() == sorted(["mine.job", done.out.strip()])


def test_submit_puts_a_job_together_from_options(sh: Shell) -> None:
    (sh.world.root / "in").write_text("hello")
    source, target = sh.world.root / "in", sh.world.out / "out"
    done = sh("submit", "--script", "copy", f"--input=source={source}", f"--output=target={target}")
    assert done.code == 0, done.err
    name = done.out.strip().removesuffix(".job")
    assert sh.world.until(name)[name]["status"] == "ok"
    assert target.read_text() == "hello"


def test_an_argument_that_comes_again_makes_a_list(sh: Shell) -> None:
    done = sh("submit", "--script=say", "--arg=words=a b", "--arg=words=c", "--name=list")
    assert done.code == 0, done.err
    assert sh.world.until("list")["list"]["stdout"] == "a b\nc\n"


def test_submit_checks_everything_first_and_with_one_bad_job_drops_none(sh: Shell) -> None:
    bad = sh.file("bad.job", "script: sya\nagrs: {}\n")
    worse = sh.file("worse.job", "script: [\n")
    done = sh("submit", sh.file("good.job"), bad, worse)
    assert done.code == 65
    assert done.out == ""
    assert f"{bad}:2:" in done.err
    assert "did you mean 'args'" in done.err
    assert f"{worse}:" in done.err
    assert "nothing was dropped" in done.err
    assert sh.names() == []
    told = sh("--json", "submit", bad).error
    assert told["code"] == 65
    assert told["hint"] == "nothing was dropped"


def test_submit_of_an_unknown_script_says_which_is_meant(sh: Shell) -> None:
    done = sh("submit", sh.file("x.job", "script: slep\nargs: {seconds: 1}\n"))
    assert done.code == 65
    assert "sleep" in done.err


def test_submit_without_anything_or_with_both_is_a_usage_error(sh: Shell) -> None:
    assert sh("submit").code == 2
    assert sh("submit", sh.file("a.job"), "--script", "say").code == 2
    assert sh("submit", sh.file("a.job"), sh.file("b.job"), "--name", "c").code == 2


def test_submit_of_a_missing_file_is_a_missing_input(sh: Shell) -> None:
    done = sh("submit", "missing.job")
    assert done.code == 66
    assert "missing.job" in done.err


def test_submit_never_overwrites_a_drop_that_waits(sh: Shell) -> None:
    sh("submit", sh.file("a.job"))
    done = sh("submit", sh.file("a.job", "script: fail\n"))
    assert done.code == 75
    assert "--name" in done.err
    assert b"say" in (sh.world.dropbox / "a.job").read_bytes()


def test_a_dry_run_changes_nothing(sh: Shell) -> None:
    done = sh("--json", "submit", "-n", sh.file("a.job"))
    assert done.code == 0
    assert done.document["dropped"] is False
    assert sh.names() == []
    sh.answer("x", script="fail")
    for verb in ("retry", "cancel"):
        sh(verb, "-n", "x")
    sh("pause", "-n", "why")
    sh("clean", "-n")
    assert sh.names() == ["x.job.finished"]
    assert not (sh.world.state / "paused").exists()


@pytest.mark.parametrize("name", ["with space", "it's", "-n", "$(touch hacked)", "é", "*"])
def test_nasty_names_are_dropped_listed_and_answered(sh: Shell, name: str) -> None:
    done = sh("submit", f"--name={name}", "--script=say", "--arg=words=1")
    assert (done.code, done.out) == (0, f"{name}.job\n"), done.err
    assert sh("list", "--json").document["jobs"][0]["name"] == f"{name}.job"
    assert sh.world.until(name)[name]["status"] == "ok"
    assert sh("check", "--", name).code == 0


def test_a_name_that_is_not_utf8_goes_in_and_out_as_bytes(sh: Shell) -> None:
    done = sh("submit", b"--name=\xff\xfe", "--script=say", "--arg=words=1")
    assert (done.code, done.out) == (0, "\udcff\udcfe.job\n"), done.err
    listed = sh("--json", "list")
    assert listed.document["jobs"][0]["name"] == "\udcff\udcfe.job"
    assert "\\xff\\xfe" in sh("list").out
    assert sh("check", b"\xff\xfe.job").code == 255


def test_a_users_verbs_need_the_dropbox_only(sh: Shell) -> None:
    box = str(sh.world.dropbox)
    assert call("--dropbox", box, "submit", sh.file("a.job")).code == 0
    assert call("check", "a", HPC_BATCH_DROPBOX=box).code == 255
    sh.world.until("a")
    assert call("--dropbox", box, "check", "a").code == 0
    assert call("--dropbox", box, "logs", "a").out == "010\n"
    assert call("--dropbox", box, "list", "--state", "ok").out.count("\n") == 2


def test_a_dropbox_that_is_not_there_is_told_with_the_command_that_makes_it(tmp_path: Path) -> None:
    done = call("--dropbox", tmp_path / "box", "list")
    assert done.code == 78
    assert "mkdir -p" in done.err


# ---- run, wait, check ------------------------------------------------------------------------


@pytest.fixture
def passes(sh: Shell) -> Iterator[None]:
    """Run passes in the background, as cron does."""
    over = threading.Event()

    def cron() -> None:
        while not over.wait(0.2):
            call(sh.world.ini, program="hpc_submitter")

    thread = threading.Thread(target=cron)
    thread.start()
    yield
    over.set()
    thread.join(timeout=60)


def test_run_waits_for_the_answer_and_exits_with_it(sh: Shell, passes: None) -> None:
    good = sh("run", "--period=0.1", "--timeout=60", sh.file("good.job"))
    assert (good.code, good.out) == (0, "good.job: ok: processed OK\n")
    bad = sh("--json", "run", "--period=0.1", "--timeout=60", sh.file("bad.job", "script: fail\n"))
    assert bad.code == 1
    assert bad.document["schema"] == "hpc_batch.run/1"
    assert bad.document["answer"]["job"]["rc"] == 3
    assert bad.document["answer"]["job"]["stderr"] == "err\n"


def test_run_again_sets_the_old_answer_aside_and_waits_for_the_new_one(
    sh: Shell, passes: None
) -> None:
    for words in ("first", "second"):
        text = f"script: say\nargs:\n    words: {words}\n"
        done = sh("run", "--json", "--period=0.1", "--timeout=60", sh.file("same.job", text))
        assert done.document["answer"]["job"]["stdout"] == f"{words}\n"
    assert sh.names() == ["same.job.finished", "same.job.finished.1"]


def test_run_gives_up_after_its_timeout_and_the_job_stays(sh: Shell) -> None:
    done = sh("run", "--period=0.05", "--timeout=0.2", sh.file("a.job"))
    assert done.code == 75
    assert "hpc-batch wait" in done.err
    assert sh.names() == ["a.job"]


def test_lwlw_submits_once_and_says_ask_again_until_it_is_done(sh: Shell) -> None:
    job = sh.file("night.job")
    codes = [sh("run", "--lwlw", job).code for _ in range(3)]
    assert codes == [255, 255, 255]
    assert sh.names() == [".night.job.asked", "night.job"]
    sh.world.until("night")
    done = [sh("run", "--lwlw", job) for _ in range(2)]
    assert [d.code for d in done] == [0, 0]
    assert sh.names() == ["night.job.finished"]
    history = (sh.world.state / "history.jsonl").read_text().splitlines()
    assert len(history) == 1


def test_lwlw_does_not_submit_again_while_the_job_is_being_taken(sh: Shell) -> None:
    job = sh.file("night.job")
    sh("run", "--lwlw", job)
    taken = (sh.world.dropbox / "night.job").rename(sh.world.root / "elsewhere")
    assert sh("run", "--lwlw", job).code == 255
    assert sh.names() == [".night.job.asked"]
    taken.rename(sh.world.dropbox / "night.job")
    sh.world.until("night")
    assert sh("run", "--lwlw", job).code == 0


def test_lwlw_tells_a_failure_with_code_one(sh: Shell) -> None:
    job = sh.file("bad.job", "script: fail\n")
    assert sh("run", "--lwlw", job).code == 255
    sh.world.until("bad")
    done = sh("run", "--lwlw", job)
    assert done.code == 1
    assert done.out.startswith("bad.job: error: ")


def test_lwlw_needs_a_name_that_stays(sh: Shell) -> None:
    assert sh("run", "--lwlw", "--script=say", "--arg=words=1").code == 2
    assert sh("run", "--lwlw", "--script=say", "--arg=words=1", "--name=n").code == 255


def test_wait_tells_each_answer_and_fails_when_one_failed(sh: Shell, passes: None) -> None:
    sh("submit", sh.file("good.job"), sh.file("bad.job", "script: fail\n"))
    done = sh("wait", "--period=0.1", "--timeout=60", "good", "bad")
    assert done.code == 1
    assert sorted(line.split(": ")[0:2] for line in done.out.splitlines()) == [
        ["bad.job", "error"],
        ["good.job", "ok"],
    ]
    again = sh("--json", "wait", "good")
    assert again.code == 0
    assert again.document["jobs"] == [
        {"name": "good.job", "status": "ok", "message": "processed OK"}
    ]


def test_check_tells_by_its_code(sh: Shell) -> None:
    sh("submit", sh.file("good.job"), sh.file("bad.job", "script: fail\n"))
    assert sh("check", "good").code == 255
    sh.world.until("good", "bad")
    assert [sh("check", n).code for n in ("good", "bad", "unknown")] == [0, 1, 1]
    told = sh("--json", "check", "bad").document
    assert (told["schema"], told["state"], told["rc"]) == ("hpc_batch.check/1", "error", 3)


# ---- looking ---------------------------------------------------------------------------------


def test_list_is_tab_separated_where_it_is_piped(sh: Shell) -> None:
    sh.answer("bad", script="fail")
    sh("submit", sh.file("new.job"))
    lines = [line.split("\t") for line in sh("list").out.splitlines()]
    assert lines[0] == ["JOB", "STATE", "SINCE", "SCRIPT", "ID", "WHY"]
    assert [line[:2] for line in lines[1:]] == [["bad", "error"], ["new", "waiting"]]
    assert lines[1][5].startswith("exit_code: ")
    assert sh("list", "--state", "failed").out.count("\n") == 2
    assert sh("list", "--state", "active").out.count("\n") == 2
    assert sh("list", "--since", "0s").out.count("\n") == 2


def test_show_tells_all_about_a_job(sh: Shell) -> None:
    node = sh.answer("bad", script="fail")
    told = sh("--json", "show", "bad").document["jobs"][0]
    assert told["id"] == node["id"]
    assert told["answer"]["job"] == node
    shown = dict(line.split("  ", 1) for line in sh("show", "last").out.splitlines())
    values = {key: value.strip() for key, value in shown.items()}
    assert (values["name"], values["state"], values["rc"]) == ("bad.job", "error", "3")
    short = node["id"].rpartition("-")[2][:8]
    assert sh("show", short).out == sh("show", node["id"]).out == sh("show", "failed").out


def test_logs_prints_what_the_script_wrote(sh: Shell) -> None:
    sh.answer("bad", script="fail")
    assert sh("logs", "bad").out == "out\n"
    assert sh("logs", "bad", "--stderr").out == "err\n"
    assert sh("logs", "-f", "bad").out == "out\n"
    assert sh("--json", "logs", "bad").document["text"] == "out\n"


def test_logs_of_a_waiting_job_say_so(sh: Shell) -> None:
    sh("submit", sh.file("a.job"))
    done = sh("logs", "a")
    assert (done.code, done.out) == (0, "")
    assert "waiting" in done.err


@pytest.mark.parametrize("gone", [None, Tail(b"", 0, 0), Tail(b"", 0, 1)])
def test_logs_of_a_running_job_come_from_the_cluster(
    sh: Shell, monkeypatch: pytest.MonkeyPatch, gone: Tail | None
) -> None:
    """Also where its files are just being removed when they are looked at."""
    code = "echo begun; while [ ! -e stop ]; do sleep 0.05; done; echo over"
    sh.world.template("slow", f"#!/bin/bash\n{code.replace('stop', '<<flag>>')}\n")
    flag = sh.world.root / "stop"
    sh.world.drop("slow", "slow", args={"flag": str(flag)})
    end = time.monotonic() + 60
    while sh.world.sweep() == 0 and sh("check", "slow", "--json").document["state"] != "running":
        assert time.monotonic() < end, sh.world.picture()
        time.sleep(0.1)
    while (done := sh("logs", "slow")).out == "":
        assert time.monotonic() < end, done.err
    assert done.out == "begun\n"
    told: list[Done] = []
    follow = ["logs", "-f", "--period=0.1", "slow"]
    follower = threading.Thread(target=lambda: told.append(sh(*follow)))
    follower.start()
    time.sleep(1)
    if gone is not None:
        monkeypatch.setattr(Session, "tail", lambda *args: gone)
        time.sleep(0.5)
    flag.touch()
    sh.world.until("slow")
    follower.join(timeout=60)
    assert told[0].out == "begun\nover\n", told[0].err


def test_a_terminal_gets_a_table_and_no_escape_sequence_of_a_users(sh: Shell) -> None:
    sh.world.drop_text("evil\x1b[2J", "script: say\n...\n")
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, TOOLS / "hpc-batch", "-c", sh.world.ini, "list"],
        stdout=slave,
        stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(slave)
    shown = b""
    try:
        while piece := os.read(master, 65536):
            shown += piece
    except OSError:
        pass  # EIO: the other end is closed
    _, err = process.communicate(timeout=60)
    os.close(master)
    assert process.returncode == 0, err
    assert b"\x1b[2J" not in shown
    assert b"evil\\x1b[2J" in shown
    assert b"JOB" in shown


def test_a_pipe_that_is_closed_early_is_no_error_of_ours(sh: Shell) -> None:
    sh.world.drop_text("a", "script: say\n...\n")
    command = f"'{sys.executable}' '{TOOLS}/hpc-batch' -c '{sh.world.ini}' list --all | true"
    done = subprocess.run(command, shell=True, capture_output=True, timeout=60, check=False)
    assert done.stderr == b""


# ---- cancel, retry ---------------------------------------------------------------------------


def test_cancel_is_answered_with_cancelled(sh: Shell) -> None:
    sh("submit", sh.file("a.job"))
    assert sh("cancel", "a").out == "a.job\n"
    assert sh.names() == ["a.job", "a.job.cancel"]
    assert sh.world.until("a")["a"]["reason"] == "cancelled"
    late = sh("--json", "cancel", "a")
    assert late.code == 1
    assert late.document["jobs"] == [{"name": "a.job", "asked": False}]


def test_retry_runs_a_failed_job_again(sh: Shell) -> None:
    first = sh.answer("bad", script="fail")
    done = sh("retry", "failed")
    assert (done.code, done.out) == (0, "bad.job\n")
    assert sh.names() == ["bad.job"]
    refused = sh("retry", "bad")
    assert refused.code == 1
    assert "in flight" in refused.err
    time.sleep(2.1)
    assert sh.world.until("bad")["bad"]["id"] != first["id"]


def test_retry_of_an_answer_that_was_removed_says_so(sh: Shell) -> None:
    sh.answer("bad", script="fail")
    sh.world.finished("bad").unlink()
    done = sh("retry", "bad")
    assert done.code == 1
    assert "submit it again" in done.err


# ---- lint, render, config --------------------------------------------------------------------


def test_lint_finds_every_problem_with_its_file_and_line(sh: Shell) -> None:
    job = sh.file("bad.job", "script: say\nscritp: x\n")
    ini = sh.file("bad.ini", "[remote]\ntransprot = local\n[nonsense]\n")
    sh.world.template("bad", "#!/bin/bash\necho <<nobody>>\nawk '<<words>>'\n")
    template = sh.world.templates / "bad.template"
    done = sh("lint", job)
    assert done.code == 65
    assert f"{job}:2:" in done.out
    done = sh("lint", ini, job)
    assert done.code == 78
    assert f"{ini}:2:" in done.out
    assert f"{ini}:3:" in done.out
    done = sh("lint", template)
    assert done.code == 1
    assert f"{template}:3:" in done.out
    findings = sh("--json", "lint", job).document["findings"]
    assert findings[0]["line"] == 2
    assert sh("lint", "what.txt").code == 2


def test_lint_without_files_checks_the_configuration_and_its_templates(sh: Shell) -> None:
    for name in ("shell", "say"):
        (sh.world.templates / f"{name}.template").unlink()
    sh.world.template("say", "#!/bin/bash\nprintf '%s\\n' <<words>>\n")
    done = sh("lint", "--json")
    assert done.code == 0, done.out
    assert str(sh.world.ini) in done.document["files"]
    assert len(done.document["files"]) == len(list(sh.world.templates.iterdir())) + 1


def test_render_prints_the_script_that_would_run(sh: Shell) -> None:
    done = sh("render", sh.file("a.job"))
    assert done.code == 0, done.err
    assert done.out.startswith("#!/bin/bash\n")
    run = subprocess.run(
        ["bash", "-c", done.out], capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stdout == "010\n"
    bad = sh("render", sh.file("b.job", "script: nobody\n"))
    assert bad.code == 65


def test_config_masks_secrets_and_the_sample_is_one(sh: Shell) -> None:
    sh.world.configure(remote={"passphrase": "pa$5%phrase"})
    for argv in (["config"], ["config", "show", "--json"]):
        done = sh(*argv)
        assert done.code == 0, done.err
        assert "pa$5" not in done.out
    assert sh("config", "path").out == f"{sh.world.ini}\n"
    assert sh("config", "check").code == 0
    assert "[hpc_env]" in call("config", "sample").out
    sh.world.ini.write_text("[remote]\nhots = x\n")
    done = sh("--json", "config", "check")
    assert done.code == 78
    assert "did you mean 'host'" in json.dumps(done.error)


def test_without_a_configuration_the_places_are_named(tmp_path: Path) -> None:
    done = call("status", HOME=str(tmp_path))
    assert done.code == 78
    assert "HPC_BATCH_CONFIG" in done.err
    assert done.err.count("\n") <= 2


def test_the_configuration_is_found_by_its_variable(sh: Shell) -> None:
    assert call("config", "path", HPC_BATCH_CONFIG=str(sh.world.ini)).out == f"{sh.world.ini}\n"


# ---- the operator ----------------------------------------------------------------------------


def test_a_pass_is_silent_and_hpc_submitter_is_the_same(sh: Shell) -> None:
    sh("submit", sh.file("a.job"))
    end = time.monotonic() + 60
    while not sh.world.finished("a").exists():
        for done in (sh("pass"), call(sh.world.ini, program="hpc_submitter")):
            assert (done.code, done.out, done.err) == (0, "", "")
        assert time.monotonic() < end, sh.world.picture()
    debug = call("--debug", sh.world.ini, program="hpc_submitter")
    assert debug.code == 0


def test_hpc_submitter_without_a_configuration_says_so_in_one_line(tmp_path: Path) -> None:
    done = call(tmp_path / "missing.ini", program="hpc_submitter")
    assert done.code == 78
    assert done.err.startswith("hpc_submitter: ")
    assert done.err.count("\n") == 1
    assert call(program="hpc_submitter").code == 2


def test_status_is_one_line_when_all_is_well(sh: Shell) -> None:
    assert "no pass has run yet" in sh("status").out
    sh.answer("a", script="say", args={"words": "1"})
    done = sh("status")
    assert done.out.count("\n") == 1
    assert done.out.startswith("all is well: no jobs")
    told = sh("--json", "status").document
    assert told["schema"] == "hpc_batch.status/1"
    assert told["pass"]["code"] == 0


def test_a_pause_holds_new_jobs_until_resume(sh: Shell) -> None:
    sh.world.sweep()
    done = sh("pause", "cluster maintenance", "--until", "2h")
    assert done.code == 0
    sh("submit", sh.file("a.job"))
    sh.world.sweep()
    assert sh.names() == ["a.job"]
    assert "cluster maintenance" in sh("status").out
    assert sh("resume").out == "resumed\n"
    assert sh("resume").out == "was not paused\n"
    assert sh.world.until("a")["a"]["status"] == "ok"


def test_a_pause_that_is_over_before_it_begins_is_refused(sh: Shell) -> None:
    assert sh("pause", "--until", "2001-01-01").code == 2


def test_resume_restored_brings_state_and_dropbox_together(sh: Shell) -> None:
    sh.answer("a", script="say", args={"words": "1"})
    for name in ("machine",):
        value = json.loads((sh.world.state / name).read_text())
        value["generation"] -= 1
        (sh.world.state / name).write_text(json.dumps(value))
    refused = sh("pass")
    assert refused.code == 78
    assert "resume --restored" in refused.err
    assert sh("resume", "--restored", "-n").code == 0
    assert sh("pass").code == 78
    assert sh("resume", "--restored").code == 0
    assert sh("pass").code == 0


def test_clean_removes_old_history_and_leaves_answers(sh: Shell) -> None:
    sh.answer("a", script="say", args={"words": "1"})
    assert sh("clean").code == 0
    time.sleep(1.1)
    tried = sh("--json", "clean", "--older-than", "1s", "-n").document
    assert [item["what"] for item in tried["removed"]] == ["history", "log"]
    assert sh("list").out.count("\n") == 2
    done = sh("clean", "--older-than", "1s")
    assert done.code == 0, done.err
    assert (sh.world.state / "history.jsonl").read_bytes() == b""
    assert sh.names() == ["a.job.finished"]


def test_a_bug_is_one_line_and_its_traceback_lies_in_the_log(sh: Shell) -> None:
    sh.world.sweep()
    (sh.world.state / "status.json").write_text('{"jobs": [{}]}')
    done = sh("--json", "list")
    assert done.code == 70
    assert done.error["kind"] == "bug"
    assert str(sh.world.state / "log") in done.error["hint"]
    assert "KeyError" in (sh.world.state / "log").read_text()


def test_the_demonstration_runs_three_jobs_and_may_be_repeated(tmp_path: Path) -> None:
    for _ in range(2):
        done = call("demo", "--folder", tmp_path / "demo", "--json")
        assert done.code == 0, done.err
        jobs = {job["job"]: job for job in done.document["jobs"]}
        assert {name: job["status"] for name, job in jobs.items()} == {
            "segments": "ok",
            "checksums": "ok",
            "no_audio": "error",
        }
        assert "not a PCM WAV" in jobs["no_audio"]["message"]
        assert "not a PCM WAV" in Path(jobs["no_audio"]["answer"]).read_text()
        assert World(tmp_path / "demo").pilots() == []
    segments = (tmp_path / "demo/results/interview.csv").read_text().splitlines()
    labels = [line.rsplit(",", 1)[1] for line in segments[1:]]
    assert labels.count("sound") >= 3
    assert labels.count("silence") >= 3
    check = ["sha256sum", "--check", "../results/interview.wav.sha256"]
    subprocess.run(check, cwd=tmp_path / "demo/media", check=True, capture_output=True, timeout=60)


# ---- from Python -----------------------------------------------------------------------------


def test_the_python_interface_against_real_passes(sh: Shell, passes: None) -> None:
    dropbox = Dropbox(sh.world.dropbox)
    good = dropbox.submit(script="say", args={"words": ["a b", "c"]})
    bad = dropbox.submit(script="fail", name="bad")
    assert good.result(timeout=60, period=0.1)["job"]["stdout"] == "a b\nc\n"
    with pytest.raises(JobError) as caught:
        bad.result(timeout=60, period=0.1)
    assert not isinstance(caught.value, InfrastructureError)
    assert bad.stderr() == "err\n"
    assert bad.state() == "finished"


def test_submit_and_wait_against_real_passes(sh: Shell, passes: None) -> None:
    target = sh.world.out / "t.txt"
    (sh.world.root / "s.txt").write_text("hello")
    job = {
        "script": "copy",
        "input_map": {"source": str(sh.world.root / "s.txt")},
        "output_map": {"target": str(target)},
    }
    answer = hpc_submit.submit_and_wait(sh.world.dropbox, job, period=0.1)
    assert answer["job"]["status"] == "ok"
    assert {key: answer[key] for key in job} == job
    assert target.read_text() == "hello"
    assert sh.names() == []
