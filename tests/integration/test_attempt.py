"""An attempt between the runner's looks."""

from __future__ import annotations

import errno
import os
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from workshop import SESSION, Workshop, wait_until

from hpc_cluster import PROTOCOL, clock, description, effects, files, work
from hpc_cluster.attempt import AGAIN_S, Attempt, Context
from hpc_cluster.guard import Guard
from hpc_cluster.walltime import Walltime
from hpc_cluster.work import QUICK_BYTES

PILOT = secrets.token_hex(8)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Workshop]:
    """A workspace."""
    workshop = Workshop(tmp_path / "w")
    yield workshop
    workshop.close()


@pytest.fixture
def guard() -> Iterator[Guard]:
    """A guard, which kills what a test leaves."""
    guard = Guard(60.0, PILOT)
    yield guard
    guard.close()


def begun(
    shop: Workshop,
    guard: Guard,
    wake: object = lambda: None,
    found: description.Description | None = None,
) -> Attempt:
    """Claim the job that waits, and begin its attempt."""
    (ticket,) = shop.spool.waiting()
    ours = shop.spool.claim(ticket, PILOT)
    assert ours is not None
    walltime = Walltime.of(None, {})
    context = Context(shop.spool, PILOT, None, walltime, guard, dict(os.environb), wake)
    return Attempt(context, ours, found)


def test_an_attempt_has_moved_on_whenever_it_wakes_the_runner(shop: Workshop, guard: Guard) -> None:
    """A runner that wakes and finds nothing to do would sleep until its next look."""
    big = b"x" * (QUICK_BYTES + 1)
    job = shop.job("#!/bin/sh\ncp in out\n", inputs=[("in", big)], outputs=["out"])
    seen: list[str] = []
    attempts: list[Attempt] = []

    def wake() -> None:
        """Look at once, as the runner may: the thread that calls has not ended yet."""
        wait_until(lambda: bool(attempts))
        attempts[0].step(alone=True)
        attempts[0].collect()
        seen.append(attempts[0].phase)

    attempts.append(begun(shop, guard, wake))
    deadline = time.monotonic() + 30
    while attempts[0].outcome is None and time.monotonic() < deadline:
        time.sleep(0.01)
        if attempts[0].phase in ("running", "ended"):
            attempts[0].step(alone=True)
            attempts[0].collect()
    assert attempts[0].outcome is not None
    wait_until(lambda: len(seen) == 2)
    assert seen[0] != "preparing" and seen[1] == "written"
    assert os.path.exists(shop.spool.path("jobs", job, "a1", "result.json"))


def test_what_is_quick_needs_no_thread(shop: Workshop, guard: Guard) -> None:
    job = shop.job("#!/bin/sh\ncp in out\n", inputs=[("in", b"x")], outputs=["out"])
    woken: list[None] = []
    attempt = begun(shop, guard, lambda: woken.append(None))
    attempt.step(alone=True)
    assert attempt.phase in ("running", "ended")

    def is_over() -> bool:
        attempt.step(alone=True)
        return attempt.phase != "running"

    wait_until(is_over)
    assert attempt.phase == "ended" and not attempt.holds_a_slot
    attempt.collect()
    assert attempt.phase == "written" and attempt.kind == "ok" and woken == []
    folder = shop.spool.attempt_folder(job, 1)
    names = ("stdout", "stderr", "result.json", "work/out")
    assert sorted(attempt.files) == sorted(files.join(folder, name) for name in names)
    assert set(attempt.folders) == {
        shop.spool.job_folder(job),
        folder,
        files.join(folder, "work"),
    }


def test_what_is_not_seen_at_once_is_looked_for_again(shop: Workshop, guard: Guard) -> None:
    """On a network file system one ENOENT means little."""
    job = shop.stage("#!/bin/sh\nexec sleep 60\n", inputs=[("in", b"x")])
    late = shop.spool.input_path(job, 0)
    files.rename(late, late + b".hidden")
    shop.spool.publish_all([(job, SESSION)])
    attempt = begun(shop, guard)
    attempt.step(alone=True)
    assert attempt.phase == "preparing"
    files.rename(late + b".hidden", late)

    def runs() -> bool:
        attempt.step(alone=True)
        return attempt.phase != "preparing"

    wait_until(runs)
    assert attempt.phase == "running"
    attempt.lose()


def test_what_the_previous_protocol_laid_out_runs(shop: Workshop, guard: Guard) -> None:
    script = "#!/bin/sh\ncat in > out\n"
    job = shop.job(script, inputs=[("in", b"x")], outputs=["out"], protocol=PROTOCOL - 1)
    assert os.path.exists(files.join(shop.spool.job_folder(job), "script"))
    attempt = begun(shop, guard)
    over(attempt)
    assert attempt.kind == "ok" and shop.result(job)["outputs"]["o0"]["bytes"] == 1


def test_a_job_is_lost_whose_files_went_after_it_was_chosen(
    shop: Workshop, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever chose it has read its description, and the script in it."""
    monkeypatch.setattr(work, "PAUSES_S", (0.01, 0.01))
    job = shop.job("#!/bin/sh\n")
    folder = shop.spool.job_folder(job)
    found = description.read(files.join(folder, description.NAME))
    files.remove_tree(folder)
    attempt = begun(shop, guard, found=found)
    over(attempt)
    assert shop.result(job)["reason"] == "lost"
    assert "deleted" in shop.result(job)["message"]


def test_a_start_that_another_pilot_has_begun_is_left_alone(shop: Workshop, guard: Guard) -> None:
    """The file server forgot its claim in a crash, and its job still writes into that folder."""
    spool, job = shop.spool, shop.job("#!/bin/sh\necho mine\n")
    other = spool.attempt_folder(job, 1)
    files.make_folder(other)
    files.write_new(files.join(other, "stdout"), b"its own")
    attempt = begun(shop, guard)

    def is_over() -> bool:
        attempt.step(alone=True)
        attempt.collect()
        return attempt.outcome is not None

    wait_until(is_over)
    assert attempt.outcome is not None and attempt.outcome.verb == "finish"
    assert attempt.ticket.starts == 2
    assert spool.tickets("running") == [attempt.ticket]
    assert files.names(other) == ["stdout"]
    assert files.read_bytes(files.join(other, "stdout")) == b"its own"
    assert files.read_bytes(spool.path("jobs", job, "a2", "stdout")) == b"mine\n"


def ended(shop: Workshop, guard: Guard) -> Attempt:
    """Have a job run to its end; nothing is collected."""
    attempt = begun(shop, guard)

    def is_over() -> bool:
        attempt.step(alone=True)
        return attempt.phase == "ended"

    wait_until(is_over)
    return attempt


def test_streams_that_cannot_be_looked_at_are_no_result(
    shop: Workshop, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt that counts as written has written its result."""
    job = shop.job("#!/bin/sh\necho x > out\n", outputs=["out"])
    attempt = ended(shop, guard)
    lstat = os.lstat

    def failing(path: bytes) -> os.stat_result:
        if os.fspath(path).endswith(b"/stdout"):
            raise OSError(errno.EIO, "Input/output error")
        return lstat(path)

    monkeypatch.setattr(os, "lstat", failing)
    attempt.collect()
    assert attempt.phase == "collecting" and attempt.outcome is None
    monkeypatch.setattr(os, "lstat", lstat)
    now = time.monotonic()
    monkeypatch.setattr(clock, "monotonic", lambda: now + AGAIN_S)
    attempt.collect()
    attempt.collect()
    assert attempt.phase == "written" and shop.result(job)["kind"] == "ok"


def test_a_thread_that_cannot_be_had_costs_no_job(
    shop: Workshop, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = b"x" * (QUICK_BYTES + 1)
    shop.job("#!/bin/sh\n", inputs=[("in", big)])

    def full(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", full)
    attempt = begun(shop, guard)
    attempt.step(alone=True)
    assert attempt.outcome is not None and attempt.outcome.verb == "unclaim"


@pytest.mark.parametrize(
    ("code", "filename", "verb"),
    [
        (errno.EAGAIN, None, "unclaim"),  # fork
        (errno.EIO, "job.sh", "unclaim"),  # exec
        (errno.EIO, None, "release"),  # whatever comes after them
    ],
)
def test_only_a_start_that_surely_began_nothing_is_made_again_in_the_same_folder(
    shop: Workshop,
    guard: Guard,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    filename: str | None,
    verb: str,
) -> None:
    def failing(*args: object, **options: object) -> None:
        raise OSError(code, os.strerror(code), filename)

    monkeypatch.setattr(effects, "start", failing)
    job = shop.job("#!/bin/sh\n")
    attempt = begun(shop, guard)
    attempt.step(alone=True)
    assert attempt.outcome is not None and attempt.outcome.verb == verb
    assert files.exists(shop.spool.attempt_folder(job, 1)) == (verb == "release")


def test_a_folder_that_cannot_be_removed_is_no_reason_to_start_without_a_script(
    shop: Workshop, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*args: object, **options: object) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def closing(path: bytes) -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    shop.job("#!/bin/sh\n")
    with monkeypatch.context() as machine:
        machine.setattr(effects, "start", failing)
        machine.setattr(effects, "rmtree", closing)
        attempt = begun(shop, guard)
        with pytest.raises(OSError, match="Bad file"):
            attempt.step(alone=True)
    attempt.step(alone=True)
    assert attempt.phase == "preparing"
    assert attempt.outcome is not None and attempt.outcome.verb == "unclaim"


def test_a_job_runs_though_its_streams_cannot_be_closed_here(
    shop: Workshop, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is started by then, and nobody would wait for it any more."""
    shop.job("#!/bin/sh\n")
    close = effects.close

    def failing(descriptor: int) -> None:
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        close(descriptor)
        if name.endswith(("stdout", "stderr")):
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(effects, "close", failing)
    assert ended(shop, guard).kind == "ok"


def over(attempt: Attempt) -> None:
    """Move an attempt on until its result is written."""

    def is_over() -> bool:
        attempt.step(alone=True)
        attempt.collect()
        return attempt.phase == "written"

    wait_until(is_over)


def test_a_script_that_cannot_be_executed_for_a_moment_is_executed_again(
    shop: Workshop, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that starts another job holds it open for writing between its fork and its exec."""
    shop.job("#!/bin/sh\n")
    real, tries = effects.start, []

    def start(argv: list[bytes], **options: object) -> object:
        tries.append(argv)
        if len(tries) < 3:
            raise OSError(errno.ETXTBSY, os.strerror(errno.ETXTBSY), argv[0])
        return real(argv, **options)

    monkeypatch.setattr(effects, "start", start)
    attempt = begun(shop, guard)
    over(attempt)
    assert (attempt.kind, len(tries)) == ("ok", 3)


def test_a_description_of_another_job_starts_nothing(
    shop: Workshop, guard: Guard, tmp_path: Path
) -> None:
    job, other = shop.stage(f"#!/bin/sh\ntouch {tmp_path}/ran\n"), shop.stage("#!/bin/sh\n")
    ours, theirs = (files.join(shop.spool.job_folder(j), "description.json") for j in (job, other))
    files.replace(ours, files.read_bytes(theirs))
    shop.spool.publish_all([(job, SESSION)])
    attempt = begun(shop, guard)
    over(attempt)
    assert attempt.kind == "fail"
    assert "the description belongs to another job" in shop.result(job)["message"]
    assert not (tmp_path / "ran").exists()
