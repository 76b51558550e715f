"""What the end of a job means, and what becomes of the ticket of one that has no verdict."""

from __future__ import annotations

import errno
import os

import pytest

from hpc_cluster import verdict
from hpc_cluster.errors import DescriptionError
from hpc_cluster.preparation import Taken
from hpc_cluster.ticket import Ticket
from hpc_cluster.verdict import BELIEVED, Outcome, Verdict
from hpc_cluster.work import CannotStart

JOB = "0123abcd-20260101T000000-00000001"


def told(found: Verdict | Outcome) -> str:
    """Return the reason of a verdict, or what becomes of the ticket."""
    return found.verb if isinstance(found, Outcome) else found.reason


def refused(code: int, name: str | None = "job.sh") -> OSError:
    return OSError(code, os.strerror(code), name)


@pytest.mark.parametrize(
    ("failure", "starts", "expected"),
    [
        (refused(errno.ENOSPC), 1, "unclaim"),
        (refused(errno.ENOSPC), BELIEVED, "unclaim"),
        (Taken("its ticket is gone"), 1, "release"),
        (CannotStart("an input is missing", "stage_in"), 1, "stage_in"),
        (DescriptionError("no JSON"), 1, "exit_code"),
        (refused(errno.ELOOP), BELIEVED - 1, "release"),
        (refused(errno.ELOOP), BELIEVED, "exit_code"),
        (ValueError("a bug"), 1, "exit_code"),
    ],
)
def test_a_job_that_cannot_be_started_is_given_back_or_answered(
    failure: BaseException, starts: int, expected: str
) -> None:
    ticket = Ticket("running", JOB, starts=starts)
    assert told(verdict.of_failure(failure, ticket)) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (refused(errno.ENOEXEC), "exit_code"),
        (refused(errno.ENOEXEC, None), "release"),
        (refused(errno.EIO), "release"),
    ],
)
def test_a_job_that_may_have_begun_is_never_answered(error: OSError, expected: str) -> None:
    found = verdict.of_refusal(error, Ticket("running", JOB, starts=BELIEVED), "/bin/sh")
    assert told(found) == expected


@pytest.mark.parametrize(
    ("why", "full_s", "expected"),
    [
        ("cancelled", None, "cancelled"),
        ("cancelled", 60.0, "cancelled"),
        ("time_limit", None, "time_limit"),
        ("hand_back", None, "release"),
        ("hand_back", 60.0, "time_limit"),
    ],
)
def test_a_job_that_was_stopped_is_handed_back_where_another_pilot_has_more_time(
    why: str, full_s: float | None, expected: str
) -> None:
    assert told(verdict.of_stop(why, 10, full_s)) == expected


@pytest.mark.parametrize(
    ("rc", "starved", "expected"),
    [
        (0, False, ("ok", "completed", "processed OK")),
        (1, False, ("fail", "exit_code", "the script ended with return code 1")),
        (-9, False, ("fail", "exit_code", "the script was killed by signal 9 (SIGKILL)")),
        (-9, True, ("fail", "out_of_memory", "killed for want of memory")),
    ],
)
def test_a_job_that_ended_by_itself_is_judged_by_its_return_code(
    rc: int, starved: bool, expected: tuple[str, str, str]
) -> None:
    assert verdict.of_exit(rc, starved=starved) == expected
