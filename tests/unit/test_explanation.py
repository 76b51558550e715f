"""Explanations, for one state of things each."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import journals
import pytest

from hpc_batch import config
from hpc_batch.config import Config, Cronjob, Hpc, Limits, Pilot, Remote
from hpc_batch.explanation import Explanation, explain
from hpc_batch.journal import Step
from hpc_batch.reasons import NEXT, is_obstacle, meaning
from hpc_batch.status import Seen, Status, iso

J = "0123abcd-0199aabbccd-0123456789abcdef"


def ago(seconds: float) -> str:
    return iso(time.time() - seconds)


@pytest.fixture
def site(tmp_path: Path) -> Config:
    dropbox, state = tmp_path / "dropbox", tmp_path / "state"
    dropbox.mkdir()
    state.mkdir()
    cronjob = Cronjob(dropbox, tmp_path / "templates", state)
    env = {"workspace": "/w"}
    path = tmp_path / "x.ini"
    return config.Config(path, Remote(), Hpc(), Pilot(), cronjob, Limits(), env)


def explained(site: Config, state: str = "staged", **more: Any) -> Explanation:
    """Explain job x; `service` is laid over a healthy status, the rest over the job."""
    service: dict[str, Any] = {"written": ago(5), "pilots": [], "trouble": []}
    service.update(more.pop("service", {}))
    others = tuple(more.pop("others", ()))
    job = Seen("x.job", state, id=None if state == "waiting" else J, since=ago(65), **more)
    seen = Status(site.cronjob.dropbox, service, (*others, job))
    return explain(seen, job, site)


def pilot(**more: Any) -> dict[str, Any]:
    return {
        "pilot": "a" * 16,
        "native_id": "4711",
        "state": "queued",
        "submitted": ago(190),
        "reason": "Priority",
        **more,
    }


RUNNING = {"state": "running", "started": ago(60), "node": "n7", "running": [J + "x"]}


@pytest.mark.parametrize(
    ("state", "service", "why", "next_step"),
    [
        ("staged", {}, "no pilot is there yet", "nothing"),
        ("staged", {"written": ago(7200)}, "no pass has run for 2 h", "cron show"),
        ("staged", {"pilots": [pilot()]}, "4711 has been queued since", "nothing"),
        ("staged", {"pilots": [pilot()]}, "Priority (others are before it", "nothing"),
        ("staged", {"pilots": [pilot(state="unknown")]}, "does not say", "nothing"),
        ("staged", {"pilots": [pilot(state="submitted")]}, "was submitted", "nothing"),
        ("staged", {"pilots": [pilot(**RUNNING)]}, "has not come to it yet", "nothing"),
        ("staged", {"pilots": [pilot(state="ended")]}, "no pilot is there yet", "nothing"),
        ("running", {}, "running since", "logs -f x"),
        ("returning", {}, "on their way back", "nothing"),
        ("staging", {}, "on their way to the cluster", "nothing"),
    ],
)
def test_where_nothing_is_wrong_it_says_what_is_waited_for(
    site: Config, state: str, service: Mapping[str, Any], why: str, next_step: str
) -> None:
    found = explained(site, state, service=service)
    assert why in found.why
    assert next_step in found.next
    assert found.evidence[0].startswith(f"{state} since ")


@pytest.mark.parametrize(
    ("state", "what", "why"),
    [
        ("staged", "pilots", "no pilot can be had: it broke"),
        ("staging", "stuck stage_in", "do not get to the cluster: it broke"),
        ("returning", "stuck stage_out", "cannot be brought back: it broke"),
        ("returning", f"answer {J}", "cannot be brought back: it broke"),
    ],
)
def test_an_open_trouble_is_the_reason(site: Config, state: str, what: str, why: str) -> None:
    trouble = [{"what": what, "since": ago(60), "message": "it broke"}]
    assert why in explained(site, state, service={"trouble": trouble}).why


def test_a_back_off_says_until_when(site: Config) -> None:
    trouble = {"what": "pilots", "since": ago(60), "message": "refused", "next": "2030-01-01"}
    assert "next try is at 2030-01-01" in explained(site, service={"trouble": [trouble]}).why


def test_a_pilot_that_cannot_start_by_itself_needs_somebody(site: Config) -> None:
    held = pilot(reason="PartitionTimeLimit")
    found = explained(site, service={"pilots": [held]})
    assert "[hpc] walltime" in found.why
    assert "pilot cancel" in found.next
    assert "Priority" in explained(site, service={"pilots": [held, pilot()]}).why


def test_the_trouble_of_another_job_is_not(site: Config) -> None:
    other = Seen("y.job", "returning", id="f" * 8 + J[8:])
    trouble = [{"what": f"answer {other.id}", "since": ago(60), "message": "it broke"}]
    found = explained(site, "returning", service={"trouble": trouble}, others=[other])
    assert "it broke" not in found.why


def test_a_time_limit_that_does_not_fit_is_told(site: Config) -> None:
    description = {"time_limit": 3600, "grace_s": 30}
    journals.write(site.cronjob.state / "journal", {J: Step({}, {"description": description})})
    left = {**RUNNING, "end_of_walltime": time.time() + 600}
    assert "1 h with grace" in explained(site, service={"pilots": [pilot(**left)]}).why.replace(
        "1 h 30 s", "1 h"
    )
    left["end_of_walltime"] = time.time() + 7200
    assert "has not come to it" in explained(site, service={"pilots": [pilot(**left)]}).why


def test_jobs_before_it_are_counted(site: Config) -> None:
    others = [Seen(f"y{n}.job", "staged", id=str(n), since=ago(100 + n)) for n in range(3)]
    found = explained(site, service={"pilots": [pilot()]}, others=others)
    assert "3 jobs of this dropbox are before it" in found.evidence


def test_a_cluster_that_is_away_comes_before_everything_that_needs_it(site: Config) -> None:
    cluster = {"reachable": False, "since": ago(3600), "trouble": "no route"}
    service = {"cluster": cluster, "pilots": [pilot()]}
    for state in ("accepted", "staging", "staged", "running", "returning"):
        found = explained(site, state, service=service)
        assert "cannot be used since" in found.why
        assert "(1 h ago)" in found.why
        assert "no route" in found.evidence[-1]
        assert "doctor" in found.next
    (site.cronjob.dropbox / "x.job").write_text("script: say\n...\n")
    assert "next pass takes it" in explained(site, "waiting", service=service).why


def test_a_pause_stops_what_has_not_been_carried_yet(site: Config) -> None:
    paused = {"until": None, "reason": "new disks", "since": ago(60)}
    for state, stopped in (("waiting", True), ("accepted", True), ("running", False)):
        why = explained(site, state, service={"paused": paused}).why
        assert ("paused: new disks" in why) == stopped


@pytest.mark.parametrize(
    ("text", "age_s", "why"),
    [
        (b"script: say\n...\n", 0, "next pass takes it"),
        (b"script: say\n", 0, "changed just now"),
        (b"script: say\n", 60, "next pass takes it"),
        (b"no job\n", 0, "no complete job file"),
        (b"no job\n", 7200, "next pass takes it"),
    ],
)
def test_a_drop_has_settled_or_not(
    site: Config, monkeypatch: pytest.MonkeyPatch, text: bytes, age_s: float, why: str
) -> None:
    (site.cronjob.dropbox / "x.job").write_bytes(text)
    now = time.time
    monkeypatch.setattr("hpc_batch.explanation.time.time", lambda: now() + age_s)
    seen = Status(site.cronjob.dropbox, {"written": iso(now())}, ())
    assert why in explain(seen, Seen("x.job", "waiting", since=iso(now())), site).why


def test_a_drop_that_is_still_open_says_so(site: Config) -> None:
    path = site.cronjob.dropbox / "x.job"
    with open(path, "w") as file:
        file.write("script: say\n")
        file.flush()
        found = explained(site, "waiting")
    assert "has it open for writing" in found.why
    assert "10 m" in found.next or "9 m" in found.next


def test_a_drop_that_can_never_be_taken_says_why(site: Config) -> None:
    (site.cronjob.dropbox / "x.job").mkdir()
    assert "not a regular file" in explained(site, "waiting").why


def test_a_drop_behind_another_of_its_name_waits_for_that(site: Config) -> None:
    (site.cronjob.dropbox / "x.job").write_text("script: say\n...\n")
    other = Seen("x.job", "running", id=J)
    assert "in flight (running)" in explained(site, "waiting", others=[other]).why


@pytest.mark.parametrize("reason", NEXT)
def test_an_answer_with_an_error_says_what_to_do(site: Config, reason: str) -> None:
    found = explained(site, "error", reason=reason, message="it broke", node="n7")
    assert f"{reason}: it broke" in found.why
    assert found.next
    assert "{" not in found.next


def test_an_answer_that_is_ok_needs_nothing(site: Config) -> None:
    assert "nothing" in explained(site, "ok").next


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("QOSMaxJobsPerUserLimit", "quality of service"),
        ("AssocGrpCPUMinutesLimit", "account"),
        ("ReqNodeNotAvail, UnavailableNodes:n1", "maintenance"),
        ("Resources", "next"),
        ("Whatever", ""),
        (None, ""),
    ],
)
def test_the_schedulers_words_are_explained_by_their_beginnings(
    word: str | None, text: str
) -> None:
    assert text in meaning(word)
    assert bool(meaning(word)) == bool(text)


@pytest.mark.parametrize(
    ("reason", "obstacle"),
    [
        ("PartitionTimeLimit", True),
        ("QOSMaxJobsPerUserLimit", True),
        ("InvalidAccount", True),
        ("JobHeldUser", True),
        ("DependencyNeverSatisfied", True),
        ("Dependency", False),
        ("Priority", False),
        ("ReqNodeNotAvail, UnavailableNodes:n1", False),
        ("RUNNING", False),
        ("", False),
        (None, False),
    ],
)
def test_what_waiting_alone_does_not_overcome_is_an_obstacle(
    reason: str | None, obstacle: bool
) -> None:
    assert is_obstacle(reason) is obstacle


@pytest.mark.parametrize("state", ["waiting", "accepted", "staging", "staged", "running"])
def test_who_sees_the_dropbox_only_is_told_no_more_than_it_shows(site: Config, state: str) -> None:
    seen = Status(site.cronjob.dropbox, None, ())
    found = explain(seen, Seen("x.job", state, id=J, since=ago(5)), None)
    assert "ask the operator" in found.next
    assert "only what the dropbox shows" in found.evidence[-1]
    hidden = Status(site.cronjob.dropbox, None, (), hidden="/state is private")
    found = explain(hidden, Seen("x.job", state, id=J, since=ago(5)), site)
    assert found.evidence[-1].startswith("/state is private: only")
