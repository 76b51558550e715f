"""The status model over real folders, filled as passes, users and kills leave them."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import journals
import pytest

from hpc_batch import jobfile, status
from hpc_batch.journal import Step
from hpc_batch.selection import NoSuchJob, select
from hpc_batch.status import Seen

NOW = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)


def identity(number: int) -> str:
    return f"0badcafe-0198000{number:04x}-{number:04x}000011112222"


class Service:
    """A dropbox and a state folder, written as a pass writes them."""

    def __init__(self, folder: Path) -> None:
        self.dropbox, self.state = folder / "dropbox", folder / "dropbox.state"
        self.dropbox.mkdir()
        self.state.mkdir()
        self.jobs: list[dict[str, Any]] = []

    def put(self, name: str, data: bytes = b"", hour: int = 0) -> None:
        path = os.path.join(os.fsencode(self.dropbox), os.fsencode(name))
        with open(path, "wb") as file:
            file.write(data)
        when = (NOW.replace(hour=hour)).timestamp()
        os.utime(path, (when, when))

    def in_flight(self, name: str, number: int, state: str = "running", hour: int = 0) -> None:
        self.jobs.append(
            {
                "id": identity(number),
                "name": name,
                "script": "s",
                "state": state,
                "since": f"2026-11-20T{hour:02}:00:00Z",
                "message": None,
                "attempt": 1,
                "node": "n1",
                "cancel": False,
                "times": {"dropped": "2026-11-20T00:00:00Z"},
            }
        )
        document = {"protocol": 1, "written": "2026-11-20T11:59:00Z", "jobs": self.jobs}
        (self.state / "status.json").write_text(json.dumps(document))

    def answered(self, name: str, number: int, how: str = "ok", hour: int = 0) -> None:
        reason = "completed" if how == "ok" else "exit_code"
        entry = {
            "id": identity(number),
            "name": name,
            "script": "s",
            "status": how,
            "reason": reason,
            "rc": 0 if how == "ok" else 3,
            "message": "told",
            "times": {},
            "attempts": 1,
            "node": "n1",
            "pilot": "p",
            "native_id": "77",
            "answered": f"2026-11-20T{hour:02}:00:00Z",
        }
        with open(self.state / "history.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def answer(self, name: str, number: int, how: str = "ok", hour: int = 0) -> None:
        node = {"status": how, "message": "told", "reason": "completed", "id": identity(number)}
        data = jobfile.answer_text(jobfile.echo(b"script: s\n"), node)
        self.put(f"{name}.finished", data, hour)

    def look(self, since: datetime | None = None) -> status.Status:
        return status.read(self.dropbox, self.state, since)

    def states(self) -> dict[str, str]:
        jobs = self.look().jobs
        assert len({job.name for job in jobs}) == len(jobs)
        return {job.name: job.state for job in jobs}


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path)


def test_before_the_first_pass_the_dropbox_is_all_there_is(tmp_path: Path) -> None:
    (tmp_path / "dropbox").mkdir()
    (tmp_path / "dropbox" / "a.job").write_bytes(b"script: s\n")
    seen = status.read(tmp_path / "dropbox", tmp_path / "missing")
    assert [(job.name, job.state) for job in seen.jobs] == [("a.job", "waiting")]
    assert seen.service is None
    assert seen.hidden is None
    assert seen.age(NOW) is None


def test_a_dropbox_that_is_gone_is_an_error_not_an_empty_list(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        status.read(tmp_path / "missing", None)


def test_drops_jobs_in_flight_and_answers_make_one_list_in_the_order_of_change(
    service: Service,
) -> None:
    service.put("new.job", hour=9)
    service.in_flight("run.job", 2, "running", hour=8)
    service.in_flight("stage.job", 3, "staging", hour=7)
    service.answered("good.job", 4, "ok", hour=5)
    service.answered("bad.job", 5, "error", hour=6)
    seen = service.look()
    assert [(job.name, job.state) for job in seen.jobs] == [
        ("good.job", "ok"),
        ("bad.job", "error"),
        ("stage.job", "staging"),
        ("run.job", "running"),
        ("new.job", "waiting"),
    ]
    assert [job.name for job in seen.in_flight] == ["stage.job", "run.job", "new.job"]
    assert seen.age(NOW) == timedelta(minutes=1)
    bad = seen.jobs[1]
    assert (bad.reason, bad.rc, bad.node, bad.native_id) == ("exit_code", 3, "n1", "77")
    assert bad.short_id == "00050000"


def test_other_files_of_the_dropbox_are_no_jobs(service: Service) -> None:
    for name in (".x.job", "notes.txt", "x.job.cancel", "x.job.asked", "x.job.finished.1"):
        service.put(name)
    (service.dropbox / ".hpc_batch").mkdir()
    assert service.states() == {}


def test_a_request_to_cancel_is_seen_before_the_drop_is_taken(service: Service) -> None:
    service.put("x.job")
    service.put("x.job.cancel")
    assert service.look().jobs[0].cancel


def test_a_job_that_was_answered_after_the_status_was_written_is_shown_once(
    service: Service,
) -> None:
    service.in_flight("x.job", 1)
    service.answered("x.job", 1)
    service.answer("x.job", 1)
    assert service.states() == {"x.job": "ok"}


def test_a_job_that_was_taken_after_the_status_was_written_is_known_by_its_record(
    service: Service,
) -> None:
    steps = {}
    for number, phase in enumerate(
        ["INTENT", "ACCEPTED", "STAGING", "PUBLISHING", "PUBLISHED", "PLACING", "CLEANING"]
    ):
        record = {"id": identity(number), "phase": phase, "name": f"{phase}.job", "script": ""}
        steps[identity(number)] = Step(record, {})
    journals.write(service.state / "journal", steps)
    assert service.states() == {
        "ACCEPTED.job": "accepted",
        "STAGING.job": "staging",
        "PUBLISHING.job": "staging",
        "PUBLISHED.job": "staged",
        "PLACING.job": "returning",
    }


def test_a_line_of_the_history_that_was_cut_or_doubled_does_no_harm(service: Service) -> None:
    service.answered("x.job", 1)
    service.answered("x.job", 1)
    with open(service.state / "history.jsonl", "a", encoding="utf-8") as file:
        file.write('[]\n"text"\n{"id": "torn", "na')
    assert service.states() == {"x.job": "ok"}


def test_an_answer_that_the_history_does_not_know_is_read_itself(service: Service) -> None:
    service.answer("old.job", 1, "error")
    service.put("broken.job.finished", b"[1, 2")
    service.put("alien.job.finished", b"some: thing\n")
    seen = service.look().jobs
    assert [(job.name, job.state, job.id) for job in seen] == [("old.job", "error", identity(1))]


def test_answers_before_a_moment_are_left_out_and_jobs_in_flight_are_not(service: Service) -> None:
    service.answered("early.job", 1, hour=1)
    service.answered("late.job", 2, hour=9)
    service.answer("before.job", 3, hour=2)
    service.answer("after.job", 4, hour=10)
    service.in_flight("long.job", 5, hour=0)
    seen = service.look(since=NOW.replace(hour=8))
    assert [job.name for job in seen.jobs] == ["long.job", "late.job", "after.job"]


def as_somebody_else(function: Callable[[], str]) -> str:
    """Return what a function returns in a process of an account without rights."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            os.write(writer, function().encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        told = file.read().decode()
    os.waitpid(child, 0)
    return told


def test_who_may_not_read_the_state_sees_what_the_dropbox_shows() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        service = Service(Path(folder))
        service.in_flight("private.job", 1)
        service.answered("answered.job", 2)
        service.put("new.job", b"script: s\n")
        service.answer("old.job", 3, "error")
        service.state.chmod(0o700 if os.geteuid() == 0 else 0)

        def look() -> str:
            seen = service.look()
            assert seen.hidden
            return " ".join(f"{job.name}:{job.state}" for job in seen.jobs)

        told = as_somebody_else(look)
        service.state.chmod(0o700)
    assert sorted(told.split()) == ["new.job:waiting", "old.job:error"]


def test_without_a_state_folder_the_submitted_copies_tell(service: Service) -> None:
    node = {"id": identity(1), "since": "2026-11-20T10:00:00Z", "state": "running"}
    text = jobfile.submitted_text(jobfile.echo(b"script: s\n"), node)
    service.put("x.job.submitted", text)
    service.put("y.job.submitted", b"")
    seen = status.read(service.dropbox, None).jobs
    assert [(job.name, job.state, job.script, job.since) for job in seen] == [
        ("x.job", "running", "s", "2026-11-20T10:00:00Z")
    ]


@pytest.mark.parametrize("name", ["new\nline", "-n", "it's $(here)", "\udcff\udcfe", "é 😀", "*"])
def test_nasty_names_come_through_as_they_are(service: Service, name: str) -> None:
    service.put(f"{name}.job")
    service.answer(f"{name}2.job", 1)
    assert service.states() == {f"{name}.job": "waiting", f"{name}2.job": "ok"}
    found = select(service.look().jobs, [f"{name}.job"])
    assert [job.name for job in found] == [f"{name}.job"]


def test_the_documents_of_all_jobs_are_json(service: Service) -> None:
    service.put("\udcff.job")
    service.answered("x.job", 1)
    service.in_flight("y.job", 2)
    for job in service.look().jobs:
        assert json.loads(json.dumps(job.document()))["state"] == job.state


# ---- selectors -------------------------------------------------------------------------------

JOBS = [
    Seen("night-1.job", "ok", id=identity(1), since="2026-11-20T01:00:00Z"),
    Seen("night-2.job", "error", id=identity(2), since="2026-11-20T02:00:00Z"),
    Seen("day.job", "error", id=identity(3), since="2026-11-20T03:00:00Z"),
    Seen("day.job", "running", id=identity(4), since="2026-11-20T04:00:00Z"),
    Seen("a[1].job", "waiting", since="2026-11-20T05:00:00Z"),
]


@pytest.mark.parametrize(
    ("selector", "numbers"),
    [
        ("night-1", [1]),
        ("night-1.job", [1]),
        (identity(2), [2]),
        (identity(2)[:-4], [2]),
        ("0003", [3]),
        ("night-*", [1, 2]),
        ("*-2", [2]),
        ("nothing*", []),
        ("failed", [2]),
        ("day", [4]),
    ],
)
def test_a_selector_means_jobs(selector: str, numbers: list[int]) -> None:
    assert [job.id for job in select(JOBS, [selector])] == [identity(n) for n in numbers]


def test_last_is_the_job_that_changed_last() -> None:
    assert [job.name for job in select(JOBS, ["last"])] == ["a[1].job"]


def test_a_name_comes_before_a_pattern_and_before_an_id() -> None:
    assert [job.name for job in select(JOBS, ["a[1]"])] == ["a[1].job"]
    named = [*JOBS, Seen("0003.job", "ok", id=identity(9))]
    assert [job.id for job in select(named, ["0003"])] == [identity(9)]


def test_several_selectors_name_each_job_once_in_their_order() -> None:
    found = select(JOBS, ["night-2", "night-*", "failed", "last"])
    assert [job.name for job in found] == ["night-2.job", "night-1.job", "a[1].job"]


@pytest.mark.parametrize("selector", ["", "nobody", "0badcafe", "000", ".job", "/etc/passwd"])
def test_what_names_no_job_or_too_many_is_said(selector: str) -> None:
    with pytest.raises(NoSuchJob):
        select(JOBS, [selector])


def test_a_name_that_is_nearly_right_is_met_with_the_right_one() -> None:
    with pytest.raises(NoSuchJob, match="did you mean 'night-2'"):
        select(JOBS, ["nihgt-2"])


def test_last_of_nothing_names_no_job() -> None:
    with pytest.raises(NoSuchJob):
        select([], ["last"])
