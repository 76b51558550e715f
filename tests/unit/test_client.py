"""The client against a real dropbox; the service's side is played by the formats' own functions."""

from __future__ import annotations

import errno
import os
import re
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hpc_batch import Dropbox, InfrastructureError, Job, JobError, as_completed, client, jobfile
from hpc_batch.client import fresh_name
from hpc_batch.errors import JobFileError


@pytest.fixture
def dropbox(tmp_path: Path) -> Dropbox:
    (tmp_path / "dropbox").mkdir()
    return Dropbox(tmp_path / "dropbox")


def take(job: Job, state: str = "accepted") -> bytes:
    """Do what the service does when it takes a drop."""
    data = job.path.read_bytes()
    node = {"id": "J", "since": "2026-11-20T10:00:00Z", "state": state}
    job.submitted_path.write_bytes(jobfile.submitted_text(jobfile.echo(data), node))
    job.path.unlink()
    return data


def answer(job: Job, data: bytes | None = None, **node: object) -> None:
    """Do what the service does when it answers."""
    data = take(job) if data is None else data
    told = {"status": "ok", "message": "processed OK", "reason": "completed", "rc": 0, **node}
    temporary = job.path.with_name(f".{job.name}.answer")
    temporary.write_bytes(jobfile.answer_text(jobfile.echo(data), told))
    job.submitted_path.unlink(missing_ok=True)
    temporary.rename(job.answer_path)


def submit(dropbox: Dropbox, name: str | None = None) -> Job:
    return dropbox.submit(script="hello", name=name)


# ---- dropping --------------------------------------------------------------------------------


def test_a_dropbox_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(NotADirectoryError, match="not a folder"):
            Dropbox(path)


def test_a_drop_is_complete_at_once_and_says_so_with_the_end_mark(dropbox: Dropbox) -> None:
    job = dropbox.submit(
        script="my_container",
        args={"level": 6, "mode": "010", "words": ["a b", "c"]},
        inputs={"input": "/tmp/foo.mp3"},
        outputs={"txt_output": "/tmp/foo.txt"},
    )
    data = job.path.read_bytes()
    assert jobfile.settled(data) == "end"
    parsed = jobfile.parse(data)
    assert parsed.script == "my_container"
    assert parsed.args == {"level": "6", "mode": "010", "words": ["a b", "c"]}
    assert parsed.input_map == {"input": "/tmp/foo.mp3"}
    assert parsed.output_map == {"txt_output": "/tmp/foo.txt"}
    assert os.listdir(dropbox.path) == [job.name]
    assert job.path.lstat().st_nlink == 1


def test_a_drop_can_be_read_by_others_as_the_umask_says(dropbox: Dropbox) -> None:
    before = os.umask(0o027)
    try:
        mode = submit(dropbox).path.stat().st_mode
    finally:
        os.umask(before)
    assert stat.S_IMODE(mode) == 0o640


def test_relative_paths_become_absolute(
    dropbox: Dropbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    job = dropbox.submit(script="x", inputs={"a": "in.wav"}, outputs={"b": Path("out") / "o.txt"})
    parsed = jobfile.parse(job.path.read_bytes())
    assert parsed.input_map == {"a": str(tmp_path / "in.wav")}
    assert parsed.output_map == {"b": str(tmp_path / "out" / "o.txt")}


@pytest.mark.parametrize(
    "name",
    ['it\'s $(here) "x".mp3', "-rf", "new\nline", "tab\t", "\x01", "é ü 😀", "\udcff\udc80", ": #"],
)
def test_any_file_name_travels_in_a_job_file(dropbox: Dropbox, name: str) -> None:
    job = dropbox.submit(script="x", inputs={"input": f"/tmp/{name}"})
    assert jobfile.parse(job.path.read_bytes()).input_map == {"input": f"/tmp/{name}"}


def test_what_a_job_file_cannot_hold_is_refused_and_nothing_is_dropped(dropbox: Dropbox) -> None:
    bad: list[dict[str, object]] = [
        {"args": {"x": None}},
        {"args": {"x": {1, 2}}},
        {"inputs": {"x": "/tmp/\ud800"}},
        {"inputs": {"two words": "/tmp/x"}},
        {"args": {"same": "1"}, "inputs": {"same": "/tmp/x"}},
    ]
    for more in bad:
        with pytest.raises(JobFileError):
            dropbox.submit(script="x", **more)  # type: ignore[arg-type]
    assert os.listdir(dropbox.path) == []


@pytest.mark.parametrize("name", ["", ".job", ".hidden", "a/b", "../x", "n\0", "x" * 242])
def test_a_name_that_no_drop_can_have_is_refused(dropbox: Dropbox, name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        submit(dropbox, name)
    assert os.listdir(dropbox.path) == []


@pytest.mark.parametrize("name", ["with space", "-n", "new\nline", "\udcff", "x" * 241, "a.job"])
def test_any_other_name_is_dropped_and_answered(dropbox: Dropbox, name: str) -> None:
    job = submit(dropbox, name)
    answer(job)
    assert job.result(timeout=5)["job"]["status"] == "ok"


def test_a_name_that_waits_already_is_never_overwritten(dropbox: Dropbox) -> None:
    first = submit(dropbox, "same").path.read_bytes()
    with pytest.raises(FileExistsError):
        dropbox.submit(script="other", name="same")
    assert dropbox.job("same").path.read_bytes() == first
    assert os.listdir(dropbox.path) == ["same.job"]


def test_of_parallel_submits_of_one_name_exactly_one_wins(dropbox: Dropbox) -> None:
    start, won, lost = threading.Barrier(8), [], []

    def one() -> None:
        start.wait()
        try:
            won.append(submit(dropbox, "same"))
        except FileExistsError:
            lost.append(1)

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)
    assert os.listdir(dropbox.path) == ["same.job"]


def test_made_up_names_differ(dropbox: Dropbox) -> None:
    assert len({submit(dropbox).name for _ in range(20)}) == 20


@pytest.mark.parametrize("script", ["../../x", ".hidden", "", "a b\n", "x" * 300, "\udcff"])
def test_a_made_up_name_is_a_file_name_whatever_the_script_is_called(
    dropbox: Dropbox, script: str
) -> None:
    job = dropbox.drop(fresh_name(script), b"script: x\n")
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}-[0-9a-f]{16}\.job", job.name)


# ---- waiting ---------------------------------------------------------------------------------


def test_the_result_is_the_answer(dropbox: Dropbox) -> None:
    job = dropbox.submit(script="hello", args={"level": 6})
    assert not job.done()
    answer(job, stdout="out\n", stderr="err\n")
    result = job.result()
    assert result["script"] == "hello"
    assert result["args"] == {"level": 6}
    assert result["job"]["message"] == "processed OK"
    assert (job.stdout(), job.stderr()) == ("out\n", "err\n")
    assert job.exception() is None


def test_the_result_stays_when_somebody_removes_the_answer(dropbox: Dropbox) -> None:
    job = submit(dropbox)
    answer(job)
    assert job.done()
    job.answer_path.unlink()
    assert job.result(timeout=0)["job"]["status"] == "ok"


@pytest.mark.parametrize("reason", ["pilot_died", "stage_in", "stage_out", "lost"])
def test_a_failure_of_the_machinery_is_an_infrastructure_error(
    dropbox: Dropbox, reason: str
) -> None:
    job = submit(dropbox)
    answer(job, status="error", reason=reason, message="why", rc=None)
    with pytest.raises(InfrastructureError, match=f"{reason}: why") as caught:
        job.result()
    assert caught.value.answer["job"]["reason"] == reason


@pytest.mark.parametrize(
    "reason",
    ["exit_code", "time_limit", "out_of_memory", "rejected", "cancelled", "of_a_later_version"],
)
def test_any_other_failure_is_a_job_error(dropbox: Dropbox, reason: str) -> None:
    job = submit(dropbox)
    answer(job, status="error", reason=reason, message="why", rc=3)
    with pytest.raises(JobError):
        job.result()
    assert isinstance(job.exception(), JobError)


def test_result_gives_up_after_its_timeout_and_may_be_asked_again(dropbox: Dropbox) -> None:
    job = submit(dropbox)
    for timeout in (0, 0.05):
        with pytest.raises(TimeoutError, match="not answered"):
            job.result(timeout=timeout, period=0.01)
        with pytest.raises(TimeoutError):
            job.exception(timeout=timeout, period=0.01)
    answer(job)
    assert job.result(timeout=0)["job"]["status"] == "ok"


def test_a_period_longer_than_the_timeout_does_not_lengthen_it(dropbox: Dropbox) -> None:
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        submit(dropbox).result(timeout=0.1, period=3600)
    assert time.monotonic() - begun < 60


def test_result_sees_an_answer_that_comes_while_it_waits(dropbox: Dropbox) -> None:
    job = submit(dropbox)
    later = threading.Timer(0.1, answer, [job])
    later.start()
    assert job.result(timeout=30, period=0.01)["job"]["status"] == "ok"
    later.join()


def test_a_dropbox_that_cannot_be_read_for_a_while_is_waited_for(
    dropbox: Dropbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(dropbox)
    answer(job)
    lstat, errors = os.lstat, [errno.EIO, errno.ESTALE, errno.EMFILE]

    def failing(path: Path) -> os.stat_result:
        if errors and path == job.answer_path:
            code = errors.pop()
            raise OSError(code, os.strerror(code))
        return lstat(path)

    monkeypatch.setattr(os, "lstat", failing)
    assert job.result(timeout=30, period=0.01)["job"]["status"] == "ok"
    errors += [errno.EIO] * 1000
    monkeypatch.setattr(client, "PATIENCE_S", 0.0)
    with pytest.raises(OSError, match="Input/output"):
        dropbox.job(job.name).wait(timeout=30, period=0.01)
    errors[:] = [errno.EACCES]
    monkeypatch.setattr(client, "PATIENCE_S", 60.0)
    with pytest.raises(PermissionError):
        dropbox.job(job.name).wait(timeout=30, period=0.01)


def test_the_state_follows_the_files(dropbox: Dropbox) -> None:
    job = submit(dropbox)
    states = [job.state()]
    data = take(job, "accepted")
    states.append(job.state())
    job.submitted_path.write_bytes(jobfile.submitted_text(None, {"state": "running"}))
    states.append(job.state())
    job.submitted_path.unlink()
    states.append(job.state())
    answer(job, data)
    states.append(job.state())
    assert states == ["waiting", "accepted", "running", "unknown", "finished"]


def test_as_completed_yields_jobs_in_the_order_of_their_answers(dropbox: Dropbox) -> None:
    jobs = [submit(dropbox) for _ in range(3)]
    order = as_completed(jobs, timeout=30, period=0.01)
    for index in (1, 2, 0):
        answer(jobs[index])
        assert next(order) is jobs[index]
    assert list(order) == []


def test_as_completed_gives_up_after_its_timeout(dropbox: Dropbox) -> None:
    jobs = [submit(dropbox) for _ in range(3)]
    answer(jobs[0])
    seen = []
    with pytest.raises(TimeoutError, match="2 jobs"):
        for job in as_completed(jobs, timeout=0.05, period=0.01):
            seen.append(job)
    assert seen == [jobs[0]]


# ---- names that are used again ---------------------------------------------------------------


def test_the_answer_of_an_earlier_job_of_the_name_is_not_taken_for_ours(dropbox: Dropbox) -> None:
    answer(submit(dropbox, "same"), message="old")
    job = submit(dropbox, "same")
    assert not job.done()
    old = take(job)
    job.answer_path.rename(job.answer_path.with_name("same.job.finished.1"))
    answer(job, old, message="new")
    assert job.result(timeout=0)["job"]["message"] == "new"


def test_our_answer_is_found_after_it_was_moved_aside_for_a_later_job(dropbox: Dropbox) -> None:
    first = submit(dropbox, "same")
    data = take(first)
    second = submit(dropbox, "same")
    answer(first, data, message="first")
    first.answer_path.rename(first.answer_path.with_name("same.job.finished.1"))
    answer(second, message="second")
    assert second.result(timeout=0)["job"]["message"] == "second"
    assert first.result(timeout=0)["job"]["message"] == "first"


def test_an_old_answer_can_be_set_aside_as_the_service_does(dropbox: Dropbox) -> None:
    assert dropbox.set_aside("same") is None
    for number in (1, 2):
        answer(submit(dropbox, "same"))
        assert dropbox.set_aside("same") == dropbox.path / f"same.job.finished.{number}"
    assert sorted(os.listdir(dropbox.path)) == ["same.job.finished.1", "same.job.finished.2"]


# ---- cancel, retry ---------------------------------------------------------------------------


def test_cancel_leaves_an_empty_request_beside_the_drop(dropbox: Dropbox) -> None:
    job = submit(dropbox, "stop")
    assert job.cancel()
    assert job.cancel()
    assert (dropbox.path / "stop.job.cancel").read_bytes() == b""


def test_what_is_answered_cannot_be_cancelled(dropbox: Dropbox) -> None:
    job = submit(dropbox, "done")
    answer(job)
    assert not job.cancel()
    assert os.listdir(dropbox.path) == ["done.job.finished"]


def test_retry_turns_the_answer_back_into_a_drop_that_says_the_same(dropbox: Dropbox) -> None:
    job = dropbox.submit(script="hello", args={"level": "010"}, name="again")
    answer(job, status="error", reason="exit_code", stdout="x\n" * 1000)
    again = dropbox.job("again").retry()
    assert os.listdir(dropbox.path) == ["again.job"]
    assert jobfile.parse(again.path.read_bytes()).args == {"level": "010"}
    assert not again.done()


def test_retry_refuses_while_a_job_of_the_name_is_in_flight(dropbox: Dropbox) -> None:
    answer(submit(dropbox, "again"))
    waiting = submit(dropbox, "again")
    with pytest.raises(FileExistsError):
        dropbox.job("again").retry()
    take(waiting)
    with pytest.raises(FileExistsError):
        dropbox.job("again").retry()
    assert (dropbox.path / "again.job.finished").exists()


def test_retry_refuses_an_answer_that_is_longer_than_a_drop_may_be(dropbox: Dropbox) -> None:
    job = submit(dropbox, "long")
    answer(job, stdout="\x01" * (1 << 19))
    with pytest.raises(ValueError, match="longer than a job file"):
        job.retry()
    assert os.listdir(dropbox.path) == ["long.job.finished"]


def test_retry_without_an_answer_says_so(dropbox: Dropbox) -> None:
    with pytest.raises(FileNotFoundError):
        dropbox.job("never").retry()


# ---- what it costs, and submit_and_wait ------------------------------------------------------


def run_alone(code: str, tools: Path) -> str:
    """Run code in a Python that sees `tools` and installed packages, nothing of the cluster."""
    environment = {**os.environ, "PYTHONPATH": str(tools)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_hpc_batch_imports_nothing_else(checkout: Path) -> None:
    code = """
import sys
import hpc_batch
print([n for n in sys.modules if n.startswith(("hpc_batch.", "yaml"))])
print(hpc_batch.Dropbox.__name__, hpc_batch.JobError.__name__, hpc_batch.as_completed.__name__)
try:
    hpc_batch.nothing
except AttributeError as error:
    print(error)
"""
    lines = run_alone(code, checkout / "tools").splitlines()
    assert lines[:2] == ["[]", "Dropbox JobError as_completed"]
    assert "nothing" in lines[2]


def test_the_client_works_without_the_clusters_side_and_the_services_packages(
    checkout: Path,
) -> None:
    code = """
import sys
import hpc_submit
from hpc_batch import Dropbox, as_completed
tops = {name.partition(".")[0] for name in sys.modules}
print(sorted(tops & {"hpc_cluster", "fabric", "paramiko", "jinja2", "filelock", "rich", "yaml"}))
"""
    assert run_alone(code, checkout / "tools").strip() == "['yaml']"


def test_submit_and_wait_wants_a_folder(tmp_path: Path) -> None:
    from hpc_submit import submit_and_wait

    with pytest.raises(NotADirectoryError):
        submit_and_wait(tmp_path / "missing", {"script": "x"})


def test_submit_and_wait_drops_waits_and_removes_the_answer(dropbox: Dropbox) -> None:
    from hpc_submit import submit_and_wait

    results: list[dict[str, object]] = []
    job = {
        "script": "my_container",
        "args": {"level": 6},
        "input_map": {"input": "/tmp/foo.mp3"},
        "output_map": {"txt_output": "/tmp/foo.txt"},
    }
    waiter = threading.Thread(
        target=lambda: results.append(submit_and_wait(str(dropbox.path), job, period=0.02))
    )
    waiter.start()
    deadline = time.monotonic() + 30
    while not (names := os.listdir(dropbox.path)) or names[0].startswith("."):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert re.fullmatch(r"hpc_submit-[0-9a-f]{16}\.job", names[0])
    dropped = dropbox.job(names[0])
    assert jobfile.settled(dropped.path.read_bytes()) == "end"
    answer(dropped, status="error", reason="exit_code", message="it failed", rc=3)
    waiter.join(timeout=30)
    assert {key: results[0][key] for key in job} == job
    assert results[0]["job"]["rc"] == 3  # type: ignore[index]
    assert os.listdir(dropbox.path) == []
