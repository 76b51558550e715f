"""Bad input: every case ends in an answer that says what to do, or in a message to the operator."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import journals
import pytest
from world import World, world

from hpc_batch import admission, settling
from hpc_batch.errors import ConfigError

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let drops without a mark be taken at once; the waiting itself has tests of its own."""
    monkeypatch.setattr(settling, "HOPELESS_S", 0.0)
    monkeypatch.setattr(settling, "QUIET_S", 0.0)


BOMB = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{unclosed: [", ["line 1"]),
        ("- a\n- list\n", ["list"]),
        ("just text\n", ["mapping"]),
        (b"script: copy\nx-pad: " + b"x" * (2 << 20) + b"\n", ["1048576 bytes"]),
        (f"script: copy\n{BOMB}", ["anchor"]),
        ("script: copy\nscript: say\n", ["line 2", "script"]),
        ("script: !!python/object/apply:os.system [id]\n", ["tag", "line 1"]),
        ("script: copy\nargs: {n: !!binary aGVsbG8=}\n", ["tag"]),
        ("[" * 5000, ["deep"]),
        (b"script: caf\xe9\n", ["UTF-8"]),
        ("---\nscript: copy\n---\nscript: say\n", ["document"]),
    ],
)
@pytest.mark.usefixtures("hasty")
def test_what_is_no_job_file_is_answered(here: World, text: str, words: list[str]) -> None:
    here.drop_text("bad", text)
    node = here.until("bad")["bad"]
    assert (node["status"], node["reason"], node["rc"]) == ("error", "rejected", None)
    for word in words:
        assert word in node["message"]


def test_a_number_of_5000_digits_is_a_text_like_any_other(here: World) -> None:
    digits = "7" * 5000
    here.drop_text("big", f"script: say\nargs: {{words: {digits}}}\n...\n")
    assert here.until("big")["big"]["stdout"] == digits + "\n"


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"script": "copi"}, ["copi", "copy"]),
        ({"script": "../../x"}, ["../../x"]),
        ({"script": "copy", "inputmap": {"a": "/x"}}, ["inputmap", "input_map"]),
        ({"script": "copy", "input_map": {"source": "relative"}}, ["relative", "absolute"]),
        ({"script": "copy", "output_map": {"target": "/nowhere/at/all"}}, ["/nowhere/at"]),
    ],
)
def test_a_wrong_job_file_is_answered_with_what_to_do(
    here: World, parts: dict[str, object], words: list[str]
) -> None:
    script = str(parts.pop("script"))
    here.drop("bad", script, **parts)
    node = here.until("bad")["bad"]
    assert (node["status"], node["reason"]) == ("error", "rejected")
    for word in words:
        assert word in node["message"]


def test_all_problems_are_told_at_once(here: World) -> None:
    here.drop(
        "bad",
        "copy",
        input_map={"source": "/no/such/input"},
        output_map={"target": "/no/such/folder/output"},
        wrong="key",
    )
    message = here.until("bad")["bad"]["message"]
    for word in ("/no/such/input", "wrong"):
        assert word in message


@pytest.mark.parametrize("kind", ["missing", "folder", "fifo", "device", "loop", "socket"])
def test_inputs_that_are_no_readable_regular_files_are_refused(here: World, kind: str) -> None:
    path = here.root / "input"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    here.drop(
        "bad",
        "copy",
        input_map={"source": str(path)},
        output_map={"target": str(here.out / "t")},
    )
    node = here.until("bad")["bad"]
    assert (node["reason"], node["status"]) == ("rejected", "error")
    assert str(path) in node["message"]


def test_an_input_that_changes_after_it_was_taken_is_an_error_of_the_job(here: World) -> None:
    here.configure(
        remote={"transport": "fabric", "host": "127.0.0.1", "port": 1, "user": "nobody"},
        hpc_env={"scripts": "/nowhere"},
    )
    source = here.root / "in"
    source.write_text("before")
    outputs = {"target": str(here.out / "t")}
    here.drop("x", "copy", input_map={"source": str(source)}, output_map=outputs)
    assert here.sweep() == 75  # taken, and the cluster is not there
    source.write_text("after!")
    journals.told(here.state / "journal", "127.0.0.1", "")
    here.configure()
    node = here.until("x")["x"]
    assert (node["status"], node["reason"]) == ("error", "stage_in")
    assert "changed" in node["message"]


@pytest.mark.parametrize(
    ("place", "word"),
    [
        ("missing/t", "no folder"),
        ("file/t", "no folder"),
        (".", "folder"),
        ("fifo", "regular"),
        ("../dropbox/t", "own folders"),
        ("../dropbox/t.job", "own folders"),
        ("../state/t", "own folders"),
        ("../hpc_batch.ini", "own folders"),
    ],
)
def test_outputs_that_cannot_or_must_not_be_written_are_refused(
    here: World, place: str, word: str
) -> None:
    here.sweep()
    (here.out / "file").write_text("")
    os.mkfifo(here.out / "fifo")
    path = os.path.normpath(here.out / place)
    here.drop("bad", "say", args={"words": "x"}, output_map={"target": path})
    node = here.until("bad")["bad"]
    assert node["reason"] == "rejected"
    assert word in node["message"]


def test_two_outputs_to_one_path_are_refused(here: World) -> None:
    path = str(here.out / "t")
    here.drop("bad", "two", output_map={"first": path, "second": f"{here.out}/./t"})
    assert here.until("bad")["bad"]["reason"] == "rejected"


def test_base_names_that_collide_are_refused(here: World) -> None:
    for folder in ("a", "b"):
        (here.root / folder).mkdir()
        (here.root / folder / "same").write_text(folder)
    here.drop(
        "bad",
        "say",
        args={"words": "x"},
        input_map={"one": str(here.root / "a/same"), "two": str(here.root / "b/same")},
    )
    node = here.until("bad")["bad"]
    assert node["reason"] == "rejected"
    assert "same" in node["message"]


@pytest.mark.parametrize(
    "name",
    [
        "with space",
        'it\'s "quoted" $(touch canary) `touch canary`',
        "new\nline",
        "-rf",
        "--help",
        "ünïcödé",
        "*?[a]",
        "a" * 251,
        "back\\slash",
        "{{ 7 }} <<x>>",
    ],
)
def test_files_with_nasty_names_travel_there_and_back(here: World, name: str) -> None:
    source, target = here.root / "in" / name, here.out / f"{name[:250]}_out"
    source.parent.mkdir()
    source.write_text("content")
    here.template("cat", "#!/bin/bash\ncat -- <<source>> > <<target>>\n")
    here.drop("x", "cat", input_map={"source": str(source)}, output_map={"target": str(target)})
    node = here.until("x")["x"]
    assert node["status"] == "ok", node
    assert target.read_text() == "content"
    assert not list(here.root.rglob("canary"))


@pytest.mark.parametrize(
    "name",
    [
        b"space x",
        b"it's",
        b"new\nline",
        b"-rf",
        b"caf\xe9\xff",
        b"n" * 242,
        b"..x",
        b"x.job.finished",
    ],
)
def test_drops_with_nasty_names_are_answered_under_those_names(here: World, name: bytes) -> None:
    text = b"script: say\nargs: {words: hello}\n...\n"
    path = os.path.join(os.fsencode(here.dropbox), name + b".job")
    if name.startswith(b".."):
        with open(path, "wb") as file:
            file.write(text)
        here.sweep()
        assert os.path.exists(path)  # a dot file is still being written
        return
    with open(path, "wb") as file:
        file.write(text)
    end = time.monotonic() + 60
    while not os.path.exists(path + b".finished"):
        here.sweep()
        assert time.monotonic() < end, here.picture()
        time.sleep(0.1)
    with open(path + b".finished", "rb") as file:
        assert b"status: ok" in file.read()


def test_what_cannot_be_answered_is_left_alone_and_told_once(
    here: World, capfd: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(here.dropbox / "fifo.job")
    (here.dropbox / "folder.job").mkdir()
    (here.dropbox / "link.job").symlink_to("/etc/passwd")
    (here.dropbox / ("n" * 243 + ".job")).write_text("script: say\n...\n")
    if os.geteuid() == 0:
        os.mknod(here.dropbox / "device.job", 0o600 | 0o020000, os.makedev(1, 5))
    begin = time.monotonic()
    here.sweep()
    assert time.monotonic() - begin < 5
    told = capfd.readouterr().err
    for name in ("fifo.job", "folder.job", "link.job", "nnn"):
        assert name in told
    here.sweep()
    assert capfd.readouterr().err == ""
    assert here.records() == []


def test_a_half_written_drop_is_not_taken_while_its_writer_has_it_open(here: World) -> None:
    source = here.root / "in"
    source.write_text("x")
    with open(here.dropbox / "slow.job", "w") as file:
        file.write("script: say\n")
        file.flush()
        time.sleep(2.5)
        here.sweep()
        assert here.records() == []
        file.write("args: {words: all of it}\n")
    assert here.until("slow")["slow"]["stdout"] == "all of it\n"


def test_a_naive_drop_is_taken_two_seconds_after_its_writer_closed_it(here: World) -> None:
    path = here.dropbox / "naive.job"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(descriptor, b"script: say\nargs: {words: x}\n")
    os.close(descriptor)
    here.sweep()
    assert path.exists()
    time.sleep(2.1)
    assert here.until("naive")["naive"]["status"] == "ok"
    mode = here.finished("naive").stat().st_mode & 0o777
    assert mode == 0o666 & ~os.umask(os.umask(0o022))


@pytest.mark.usefixtures("hasty")
def test_an_unreadable_drop_is_answered(here: World, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can hand a file to somebody else")
    with world(tmp_path / "warm") as warm:  # what is loaded once need not be found by nobody
        warm.drop_text("x", "- no job\n")
        warm.until("x")
    for path in (here.root, here.dropbox, here.out, here.templates, here.ini):
        os.chown(path, 65534, 65534)
    here.drop_text("mine", "script: say\n...\n").chmod(0o600)
    for folder in [here.root, *here.root.parents][:4]:
        folder.chmod(folder.stat().st_mode | 0o011)
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.listdir(CHECKOUT / "on_hpc")  # or nobody may look into the checkout
            code = here.sweep()
        except (PermissionError, ImportError, LookupError):
            code = 77  # of the checkout or of Python
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 77:
        pytest.skip("the account nobody may not read the checkout, or this Python")
    assert code == 0
    assert here.answer("mine")["reason"] == "rejected"
    assert "cannot be read" in here.answer("mine")["message"]


# ---- cancel ----------------------------------------------------------------------------------


def test_a_cancel_before_the_drop_is_taken(here: World) -> None:
    here.drop_text("x", "script: say\n")  # not settled yet
    (here.dropbox / "x.job.cancel").touch()
    node = here.until("x")["x"]
    assert (node["status"], node["reason"], node["attempts"]) == ("error", "cancelled", 0)
    assert not (here.dropbox / "x.job.cancel").exists()


def test_a_cancel_while_the_job_runs_stops_it(here: World) -> None:
    here.drop("x", "sleep", args={"seconds": "300"}, output_map={"target": str(here.out / "t")})
    here.sweep()
    end = time.monotonic() + 20
    while not list(here.workspace.glob("running/*")):
        assert time.monotonic() < end, here.picture()
        time.sleep(0.05)
    (here.dropbox / "x.job.cancel").touch()
    node = here.until("x", timeout=90)["x"]
    assert (node["status"], node["reason"], node["attempts"]) == ("error", "cancelled", 1)
    assert os.listdir(here.out) == []


def test_a_cancel_of_a_job_that_waits_on_the_cluster(here: World) -> None:
    (here.state).mkdir(mode=0o700)
    (here.state / "paused").write_text("")
    (here.state / "paused").unlink()
    here.drop("first", "sleep", args={"seconds": "4"}, output_map={"target": str(here.out / "1")})
    here.sweep()
    here.drop("second", "sleep", args={"seconds": "4"}, output_map={"target": str(here.out / "2")})
    here.sweep()
    (here.dropbox / "second.job.cancel").touch()
    answers = here.until("first", "second")
    assert answers["first"]["status"] == "ok"
    assert answers["second"]["reason"] == "cancelled"


def test_a_cancel_that_comes_too_late_does_not_hit_a_later_drop_of_that_name(here: World) -> None:
    here.drop_quick("thing")
    here.sweep()
    here.wait_for_tickets(1)
    (here.dropbox / "thing.job.cancel").touch()
    assert here.until("thing")["thing"]["status"] == "ok"
    assert not (here.dropbox / "thing.job.cancel").exists()
    here.finished("thing").unlink()
    here.drop_quick("thing")
    assert here.until("thing")["thing"]["status"] == "ok"


def test_a_cancel_that_goes_with_the_answer_troubles_nobody(
    here: World, capsys: pytest.CaptureFixture[str]
) -> None:
    here.drop_quick("thing")
    here.sweep()
    here.wait_for_tickets(1)
    (here.dropbox / "thing.job.cancel").touch()
    here.drop_quick("next")
    assert here.sweep() == 0
    assert capsys.readouterr().err == ""
    assert here.answer("thing")["status"] == "ok" and not (here.dropbox / "next.job").exists()


def test_a_cancel_after_the_answer_cancels_nothing_and_is_removed(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.drop_copy("x")
    here.until("x")
    (here.dropbox / "x.job.cancel").touch()
    here.sweep()
    assert (here.dropbox / "x.job.cancel").exists()
    monkeypatch.setattr(admission, "CANCEL_S", 0)
    here.sweep()
    assert not (here.dropbox / "x.job.cancel").exists()
    assert here.answer("x")["status"] == "ok"


# ---- the operator's mistakes -----------------------------------------------------------------


def test_a_changed_workspace_with_jobs_in_flight_stops_the_pass(here: World) -> None:
    here.drop("x", "sleep", args={"seconds": "2"}, output_map={"target": str(here.out / "t")})
    here.sweep()
    here.configure(hpc_env={"workspace": here.root / "elsewhere"})
    with pytest.raises(ConfigError, match="1 jobs are still on"):
        here.sweep()
    here.configure()
    assert here.until("x")["x"]["status"] == "ok"


def test_a_restored_state_is_refused_until_the_operator_says_so(
    here: World, tmp_path: Path
) -> None:
    from hpc_batch import restore

    here.drop_copy("old")
    here.until("old")
    backup = tmp_path / "backup"
    subprocess.run(["cp", "-a", here.state, backup], check=True)
    here.drop("new", "sleep", args={"seconds": "1"}, output_map={"target": str(here.out / "n")})
    here.sweep()
    assert here.records()
    subprocess.run(["rm", "-rf", here.state], check=True)
    subprocess.run(["cp", "-a", backup, here.state], check=True)
    with pytest.raises(ConfigError, match="restored"):
        here.sweep()
    told = restore.restore(here.config)
    assert any("new.job" in line for line in told)
    assert here.until("new")["new"]["status"] == "ok"
    assert list((here.dropbox / ".hpc_batch").glob("*.drop")) == []


def test_a_lost_state_with_jobs_in_flight_is_refused(here: World) -> None:
    here.drop("x", "sleep", args={"seconds": "1"}, output_map={"target": str(here.out / "t")})
    here.sweep()
    subprocess.run(["rm", "-rf", here.state], check=True)
    with pytest.raises(ConfigError, match="restore"):
        here.sweep()


def test_a_state_of_another_machine_is_refused(here: World) -> None:
    here.sweep()
    path = here.state / "machine"
    path.write_text(path.read_text().replace('"machine": "', '"machine": "other'))
    with pytest.raises(ConfigError, match="another machine"):
        here.sweep()


@pytest.mark.parametrize("kind", ["gone", "fifo", "link"])
def test_a_drop_that_is_exchanged_after_it_was_chosen_is_answered(here: World, kind: str) -> None:
    """Killed between the intent and the rename, while the user does something odd."""
    here.drop("x", "say", args={"words": "x"})
    here.sweep()
    (record,) = here.records()
    journals.told(here.state / "journal", '"PUBLISHED"', '"ACCEPTED"')
    drop = here.dropbox / ".hpc_batch" / f"{record['id']}.drop"
    drop.unlink()
    if kind == "fifo":
        os.mkfifo(drop)
    elif kind == "link":
        drop.symlink_to("/etc/passwd")
    node = here.until("x")["x"]
    assert node["reason"] == "rejected"
    assert "cannot be read" in node["message"]


def test_only_accepted_users_may_submit_and_cancel(
    here: World, capfd: pytest.CaptureFixture[str]
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can hand a file to somebody else")
    here.configure(
        cronjob={
            "dropbox": here.dropbox,
            "state": here.state,
            "templates": here.templates,
            "accept_from": "daemon 4711",
        }
    )
    for name, owner in (("ours", 0), ("named", 1), ("numbered", 4711), ("stranger", 2)):
        os.chown(here.drop(name, "say", args={"words": "x"}), owner, -1)
    answers = here.until("ours", "named", "numbered", "stranger")
    assert [answers[n]["status"] for n in ("ours", "named", "numbered")] == ["ok"] * 3
    assert answers["stranger"]["reason"] == "rejected"
    assert "accept_from" in answers["stranger"]["message"]
    path = here.dropbox / "ours.job.cancel"
    path.touch()
    os.chown(path, 2, -1)
    here.sweep()
    assert "accept_from" in capfd.readouterr().err
    assert path.exists()
    path.unlink()


def test_a_full_dropbox_is_told_and_taken_from_when_there_is_room(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    small = tmp_path / "w" / "dropbox"
    small.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "none", small], check=True)
    try:
        with world(tmp_path / "w") as here:
            here.sweep()
            here.drop("x", "say", args={"words": "x"})
            filler = small / "filler"
            with pytest.raises(OSError, match="No space"), open(filler, "wb") as file:
                file.write(b"x" * 200_000)
            assert here.sweep() == 75
            assert "no drop can be taken" in capfd.readouterr().err
            filler.unlink()
            assert here.until("x")["x"]["status"] == "ok"
    finally:
        subprocess.run(["umount", small], check=True)
