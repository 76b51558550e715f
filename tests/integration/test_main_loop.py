"""The main loop on one machine: drops, passes, pilots, answers."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import journals
import pytest
import yaml
from desk import NAMES, making
from world import World, world

from hpc_cluster import effects, files


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def test_a_dropped_job_comes_back_answered_with_its_output(here: World) -> None:
    target = here.drop_copy("one", "content")
    node = here.until("one")["one"]
    assert node["status"] == "ok"
    assert node["message"] == "processed OK"
    assert node["rc"] == 0
    assert node["reason"] == "completed"
    assert node["attempts"] == 1
    assert node["outputs"]["target"]["size"] == 7
    assert all(node["times"].values())
    assert target.read_text() == "content"
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~_umask()
    assert sorted(os.listdir(here.dropbox)) == [".hpc_batch", "one.job.finished"]
    assert sorted(os.listdir(here.dropbox / ".hpc_batch")) == ["instance", "probe", "trash"]
    assert sorted(os.listdir(here.out)) == ["one.out"]


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def test_the_answer_repeats_the_description_and_renamed_to_job_is_a_retry(here: World) -> None:
    here.drop("say", "say", args={"words": "010"}, **{"x-galaxy": "dataset 12"})
    here.until("say")
    answer = yaml.safe_load(here.finished("say").read_text())
    assert answer["script"] == "say"
    assert answer["args"] == {"words": "010"}
    assert answer["x-galaxy"] == "dataset 12"
    first = answer["job"]["id"]
    here.finished("say").rename(here.dropbox / "say.job")
    time.sleep(2.1)
    assert here.until("say")["say"]["id"] != first


def test_a_script_that_fails_is_answered_with_its_code_and_streams(here: World) -> None:
    here.drop("bad", "fail")
    node = here.until("bad")["bad"]
    assert (node["status"], node["reason"], node["rc"]) == ("error", "exit_code", 3)
    assert (node["stdout"], node["stderr"]) == ("out\n", "err\n")


def test_fifty_jobs_share_one_pilot(here: World) -> None:
    names = [f"job{n}" for n in range(50)]
    for name in names:
        here.drop_copy(name, name)
    answers = here.until(*names)
    assert all(node["status"] == "ok" for node in answers.values())
    assert len({node["pilot"]["id"] for node in answers.values()}) == 1
    assert all((here.out / f"{name}.out").read_text() == name for name in names)


def test_jobs_that_are_dropped_while_the_pilot_works_ride_along(here: World) -> None:
    here.drop("slow", "sleep", args={"seconds": "3"}, output_map={"target": str(here.out / "s")})
    here.sweep()
    here.drop_copy("late")
    answers = here.until("slow", "late")
    assert answers["slow"]["pilot"]["id"] == answers["late"]["pilot"]["id"]


def test_nothing_is_left_on_the_cluster_but_the_pilots_papers(here: World) -> None:
    here.drop_copy("one")
    here.until("one")
    for folder in ("incoming", "ready", "running", "jobs", "trash", "kept"):
        assert os.listdir(here.workspace / folder) == []
    assert list(here.workspace.glob("done/*/*")) == []


def test_the_data_stays_on_the_cluster_with_nocleanup(here: World) -> None:
    here.drop_copy("one", "keep me")
    here.sweep(nocleanup=True)
    while here.records():
        here.sweep(nocleanup=True)
        time.sleep(0.1)
    kept = list(here.workspace.glob("kept/*/a1/work/one.out"))
    assert [p.read_text() for p in kept] == ["keep me"]


def test_a_pass_with_nothing_in_flight_does_not_connect(here: World) -> None:
    here.sweep()
    assert here.status()["pass"]["logins"] == 0
    assert not here.workspace.exists()


def test_a_pass_costs_the_same_logins_channels_and_exchanges_for_any_number_of_jobs(
    here: World, tmp_path: Path
) -> None:
    costs = []
    for count in (1, 200):
        with world(tmp_path / str(count), pilot={"linger": 30, "slots": 2}) as other:
            for number in range(count):
                other.drop_quick(f"job{number}")
            other.sweep()
            staging = other.status()["pass"]
            other.wait_for_tickets(count)
            other.sweep()
            collecting = other.status()["pass"]
            assert len(list(other.dropbox.glob("*.finished"))) == count
            costs.append(
                [
                    {k: p[k] for k in ("logins", "channels", "exchanges")}
                    for p in (staging, collecting)
                ]
            )
    assert costs[0] == costs[1]
    assert all(part["logins"] == 1 for part in costs[0])


def test_the_dropbox_may_lie_on_another_file_system_than_the_state(here: World) -> None:
    other = Path("/dev/shm")
    if other.stat().st_dev == here.root.stat().st_dev:
        pytest.skip("there is no other file system at /dev/shm")
    folder = other / f"hpc_batch-test-{os.getpid()}"
    folder.mkdir()
    try:
        here.dropbox = folder
        here.configure()
        here.drop_copy("one")
        assert here.until("one")["one"]["status"] == "ok"
    finally:
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        folder.rmdir()


def test_the_shown_state_follows_the_job(here: World) -> None:
    here.configure(pilot={"linger": 0})
    here.drop("slow", "sleep", args={"seconds": "2"}, output_map={"target": str(here.out / "s")})
    here.sweep()
    submitted = here.dropbox / "slow.job.submitted"
    assert yaml.safe_load(submitted.read_text())["hpc"]["state"] == "staged"
    deadline = time.monotonic() + 20
    while not list(here.workspace.glob("running/*")):
        assert time.monotonic() < deadline, here.picture()
        time.sleep(0.05)
    here.sweep()
    assert yaml.safe_load(submitted.read_text())["hpc"]["state"] == "running"
    assert [j["state"] for j in here.status()["jobs"]] == ["running"]
    here.until("slow")
    assert not submitted.exists()


def test_outputs_replace_older_files_and_leave_them_on_failure(here: World) -> None:
    target = here.out / "kept.txt"
    target.write_text("older")
    here.drop("no", "nothing", output_map={"target": str(target)})
    node = here.until("no")["no"]
    assert (node["status"], node["reason"]) == ("error", "stage_out")
    assert "kept.txt" in node["message"]
    assert target.read_text() == "older"
    here.drop_copy("yes")
    (here.out / "yes.out").write_text("older")
    assert here.until("yes")["yes"]["status"] == "ok"
    assert (here.out / "yes.out").read_text() == "hello"


def test_one_missing_output_places_none(here: World) -> None:
    here.template("half", "#!/bin/bash\necho one > <<first>>\n# <<second>>\n")
    outputs = {"first": str(here.out / "1"), "second": str(here.out / "2")}
    here.drop("half", "half", output_map=outputs)
    node = here.until("half")["half"]
    assert node["reason"] == "stage_out"
    assert os.listdir(here.out) == []


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("symlink", "ln -s /etc/passwd t"),
        ("fifo", "mkfifo t"),
        ("folder", "mkdir t"),
        ("symlink to an input", "ln -s s t"),
    ],
)
def test_an_output_that_is_no_regular_file_is_refused(here: World, kind: str, code: str) -> None:
    source = here.root / "s"
    source.write_text("in")
    here.drop(
        "odd",
        "shell",
        args={"code": code},
        input_map={"s": str(source)},
        output_map={"t": str(here.out / "t")},
    )
    node = here.until("odd")["odd"]
    assert (node["status"], node["reason"], node["rc"]) == ("error", "stage_out", 0)
    assert os.listdir(here.out) == []


def test_a_hundred_megabytes_of_stdout_are_cut_in_the_middle(here: World) -> None:
    code = "echo begin; head -c 100000000 /dev/zero | tr '\\0' x; echo; echo end"
    here.drop("long", "shell", args={"code": code})
    node = here.until("long")["long"]
    assert node["status"] == "ok"
    assert len(node["stdout"]) < 300_000
    assert node["stdout"].startswith("begin\n")
    assert node["stdout"].endswith("\nend\n")
    assert "cut" in node["stdout"] or "left out" in node["stdout"]


def test_stdout_that_is_not_utf_8_appears_as_escapes(here: World) -> None:
    here.drop("bytes", "shell", args={"code": "printf 'caf\\351 \\377\\n'"})
    assert here.until("bytes")["bytes"]["stdout"] == "caf\\xe9 \\xff\n"


def test_an_unread_answer_is_moved_aside_for_the_next_job_of_that_name(here: World) -> None:
    here.drop_copy("same", "first")
    first = here.until("same")["same"]["id"]
    here.drop_copy("same", "second")
    second = here.until("same")["same"]["id"]
    aside = yaml.safe_load((here.dropbox / "same.job.finished.1").read_text())
    assert aside["job"]["id"] == first != second


def test_a_second_drop_of_a_name_in_flight_waits_for_the_first(here: World) -> None:
    seconds = {"seconds": "2"}
    here.drop("same", "sleep", args=seconds, output_map={"target": str(here.out / "1")})
    here.sweep()
    here.drop("same", "sleep", args=seconds, output_map={"target": str(here.out / "2")})
    here.sweep()
    assert (here.dropbox / "same.job").exists()
    assert len(here.records()) == 1
    deadline = time.monotonic() + 30
    while not (here.dropbox / "same.job.finished.1").exists() or here.records():
        here.sweep()
        assert time.monotonic() < deadline, here.picture()
        time.sleep(0.1)
    assert sorted(os.listdir(here.out)) == ["1", "2"]


def test_a_pass_beside_a_running_pass_does_nothing_and_says_ok(here: World) -> None:
    from hpc_batch.state import hold

    here.drop_copy("one")
    with hold(here.config):
        assert here.sweep() == 0
    assert (here.dropbox / "one.job").exists()


def test_a_pilot_runs_as_many_jobs_at_a_time_as_it_has_slots(tmp_path: Path) -> None:
    with world(tmp_path, pilot={"linger": 0, "slots": 3}) as here:
        begin = time.monotonic()
        for number in range(3):
            outputs = {"target": str(here.out / str(number))}
            here.drop(f"job{number}", "sleep", args={"seconds": "4"}, output_map=outputs)
        answers = here.until("job0", "job1", "job2")
        assert {a["status"] for a in answers.values()} == {"ok"}
        assert len({a["pilot"]["id"] for a in answers.values()}) == 1
        starts = [a["start"] for a in answers.values()]
        ends = [a["end"] for a in answers.values()]
        assert max(starts) < min(ends)
        assert time.monotonic() - begin < 60


def test_one_job_that_the_cluster_cannot_understand_delays_no_other(
    here: World, capfd: pytest.CaptureFixture[str]
) -> None:
    here.drop_copy("good")
    here.drop_copy("odd")
    here.configure(
        remote={"transport": "fabric", "host": "127.0.0.1", "port": 1, "user": "u"},
        hpc_env={"scripts": "/nowhere"},
    )
    here.sweep()  # both are taken; the cluster is not there
    journals.told(here.state / "journal", "127.0.0.1", "")

    def make_odd(record: Any, papers: Any) -> None:
        if record["name"] == "odd.job":
            papers["description"]["layout"] = "spiral"

    journals.rewrite(here.state / "journal", make_odd)
    here.configure()
    deadline = time.monotonic() + 60
    while not here.finished("good").exists():
        here.sweep()
        assert time.monotonic() < deadline, here.picture()
    assert here.answer("good")["status"] == "ok"
    assert [r["name"] for r in here.records() if r["phase"] == "STAGING"] == ["odd.job"]
    assert "odd.job cannot go on" in capfd.readouterr().err


def test_a_cancel_file_that_comes_with_the_answer_does_not_stop_the_taking(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        here.drop("late", "say", args={"words": "one"})
        here.sweep()
        here.wait_for_tickets(1)
        (here.dropbox / "late.job.cancel").touch()
        here.drop("next", "nothing", output_map={"target": str(here.out / "next")})
        assert here.sweep() == 0
        assert here.answer("late")["status"] == "ok"
        assert [r["name"] for r in here.records()] == ["next.job"]


def test_a_cancelled_job_is_answered_with_its_own_words_after_half_a_check(tmp_path: Path) -> None:
    with making(tmp_path) as make:
        desk = make("host")
        desk.take()
        with (desk.here.state / "journal").open("ab") as journal:
            for record in desk.records:  # a check that was cut off while it wrote
                journal.write(b'0123abcd %s {"dropbox": "/d", "do' % record.id.encode())
        for record in desk.records:
            (desk.here.dropbox / f"{record.name}.cancel").touch()
    desk.here.sweep()
    for name in NAMES:
        answer = yaml.safe_load((desk.here.dropbox / f"{name}.finished").read_bytes())
        assert answer["args"] == {"words": name}
        assert answer["job"]["reason"] == "cancelled"
        assert "drop" not in answer["job"]


def test_a_job_that_was_checked_is_not_checked_again_where_that_was_reported_as_failed(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = [here.drop_copy(name, name) for name in ("one", "two")]
    pwrite, lied = effects.pwrite, []

    def lying(descriptor: int, data: bytes, offset: int) -> int:
        done = pwrite(descriptor, data, offset)
        if b'"STAGING"' in bytes(data) and not lied:
            lied.append(offset)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return done

    with monkeypatch.context() as disk:
        disk.setattr(effects, "pwrite", lying)
        here.sweep()
    assert lied
    assert {n: node["status"] for n, node in here.until("one", "two").items()} == {
        "one": "ok",
        "two": "ok",
    }
    assert [target.read_text() for target in targets] == ["one", "two"]


def test_a_file_of_many_jobs_is_stored_once_and_the_store_is_counted(here: World) -> None:
    source = here.root / "shared"
    source.write_bytes(os.urandom(1 << 20))
    os.utime(source, ns=(1, 1))
    time.sleep(2.1)  # a file that changed just now may change again
    for batch in range(2):
        names = [f"job{batch}{number}" for number in range(5)]
        for name in names:
            outputs = {"target": str(here.out / name)}
            here.drop(name, "copy", input_map={"source": str(source)}, output_map=outputs)
        here.until(*names)
        stored = list((here.workspace / "inputs").iterdir())
        assert len(stored) == 1 and stored[0].stat().st_size == 1 << 20
        assert here.status()["store"]["bytes"] == 1 << 20, "sent once"
    files.unlink(str(here.state / "swept.json"))
    here.drop_copy("last")
    here.until("last")
    store = here.status()["store"]
    assert {k: store[k] for k in ("files", "bytes", "in_use")} == {
        "files": 1,
        "bytes": 1 << 20,
        "in_use": 0,
    }


def test_a_store_that_has_outgrown_its_limit_is_swept(here: World) -> None:
    here.configure(limits={"store_bytes": "1M"})
    source = here.root / "big"
    source.write_bytes(bytes(2 << 20))
    here.drop_copy("first")
    here.until("first")
    outputs = {"target": str(here.out / "t")}
    here.drop("second", "copy", input_map={"source": str(source)}, output_map=outputs)
    here.until("second")
    stored = next(iter((here.workspace / "inputs").iterdir()))
    hour_ago = time.time() - 3600
    os.utime(stored, (hour_ago, stored.stat().st_mtime))
    swept = files.read_json(str(here.state / "swept.json"))
    files.replace(
        str(here.state / "swept.json"),
        files.to_json({**swept, "elapsed_s": swept["elapsed_s"] - 3600}),
    )
    here.drop_copy("third")
    here.until("third")
    assert list((here.workspace / "inputs").iterdir()) == []
    store = here.status()["store"]
    assert (store["bytes"], store["evicted"], store["limit"]) == (0, 1, 1 << 20)
