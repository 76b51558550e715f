"""Calls of the system that fail, or end a process, under the programs as they are.

Each defect that was found this way stands in `ONCE_WRONG`; beside them the suite tries faults at
random, one in a round or, in a storm, many. HPC_BATCH_FULL=1 tries all of the former and many more
of the latter; `sweep.py` as many as wanted.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from preload.library import Act, Call, Judge, Role, built, judging
from preload.rounds import (
    LASTING,
    Fault,
    Round,
    calls,
    calm,
    choose,
    choose_storm,
    choose_strange,
    disturbed,
    hastened,
    stormy,
)

FULL = bool(os.environ.get("HPC_BATCH_FULL"))

SUBMITTER, SESSION, RUNNER = Role.SUBMITTER, Role.SESSION, Role.RUNNER

ONCE_WRONG = {
    "a template that cannot be read now": Fault(
        SUBMITTER, Call.READ, Act.FAIL, 1, errno.ESTALE, 1, "templates/two.template"
    ),
    "a listing without a template": Fault(
        SUBMITTER, Call.LIST, Act.HIDE, 1, 0, LASTING, "templates"
    ),
    "a drop that cannot be read now": Fault(
        SUBMITTER, Call.READ, Act.FAIL, 1, errno.EIO, LASTING, "dropbox/.hpc_batch/*.drop"
    ),
    "an input that cannot be opened now": Fault(
        SUBMITTER, Call.OPEN_READ, Act.FAIL, 1, errno.EIO, LASTING, "in/*"
    ),
    "an output's folder that cannot be looked at now": Fault(
        SUBMITTER, Call.STAT, Act.FAIL, 1, errno.EIO, 20, "out*"
    ),
    "an answer that cannot be looked at now": Fault(
        SUBMITTER, Call.STAT, Act.FAIL, 1, errno.EIO, LASTING, "dropbox/.hpc_batch/*.answer"
    ),
    "a submitted file that cannot be removed now": Fault(
        SUBMITTER, Call.UNLINK, Act.FAIL, 1, errno.EIO, LASTING, "dropbox/*.submitted"
    ),
    "an output's folder that cannot be listed now": Fault(
        SUBMITTER, Call.LIST, Act.FAIL, 1, errno.EIO, LASTING, "out"
    ),
    "a result that cannot be read now": Fault(
        SESSION, Call.OPEN_READ, Act.FAIL, 1, errno.EIO, LASTING, "workspace/jobs/*/result.json"
    ),
    "a stream that cannot be read now": Fault(
        SESSION, Call.OPEN_READ, Act.FAIL, 1, errno.ESTALE, LASTING, "workspace/jobs/*/stdout"
    ),
    "a result that is not found at first": Fault(
        SESSION, Call.OPEN_READ, Act.FAIL, 1, errno.ENOENT, 3, "workspace/jobs/*/result.json"
    ),
    "a stream that is not found at first": Fault(
        SESSION, Call.OPEN_READ, Act.FAIL, 1, errno.ENOENT, 3, "workspace/jobs/*/stdout"
    ),
    "an output that is not found at first": Fault(
        SESSION, Call.OPEN_READ, Act.FAIL, 1, errno.ENOENT, 2, "workspace/jobs/*/work/*"
    ),
    "a workspace that cannot be read now": Fault(
        SESSION, Call.OPEN_READ, Act.FAIL, 1, errno.EIO, 1, "workspace/PROTOCOL"
    ),
    "two passes in a row that cannot count themselves": Fault(
        SUBMITTER, Call.WRITE, Act.FAIL, 1, errno.EIO, LASTING, "dropbox/.hpc_batch/instance"
    ),
    "streams that cannot be looked at once their job has ended": Fault(
        RUNNER, Call.STAT, Act.FAIL, 1, errno.EIO, 2, "workspace/jobs/*/a1/stdout"
    ),
    "a job's folder that has too many links now": Fault(
        RUNNER, Call.MKDIR, Act.FAIL, 1, errno.EMLINK, 3, "workspace/jobs/*/a1*"
    ),
    "a template that is not found at first": Fault(
        SUBMITTER, Call.OPEN_READ, Act.FAIL, 1, errno.ENOENT, 1, "templates/two.template"
    ),
    "an input that is not found at first": Fault(
        SUBMITTER, Call.STAT, Act.FAIL, 1, errno.ENOENT, 1, "in/*"
    ),
    "an input that is not found when it is sent": Fault(
        SUBMITTER, Call.STAT, Act.FAIL, 9, errno.ENOENT, 1, "in/*"
    ),
    "a journal that is not found at first": Fault(
        SUBMITTER, Call.OPEN_READ, Act.FAIL, 1, errno.ENOENT, 1, "state/journal"
    ),
    "a drop that is not found once it was taken": Fault(
        SUBMITTER, Call.OPEN_READ, Act.FAIL, 1, errno.ENOENT, 1, "dropbox/.hpc_batch/*.drop"
    ),
    "an answer that is not found, as if it were out": Fault(
        SUBMITTER, Call.STAT, Act.FAIL, 1, errno.ENOENT, 2, "dropbox/.hpc_batch/*.answer"
    ),
    "an output that may not be placed at first": Fault(
        SUBMITTER, Call.RENAME, Act.FAIL, 1, errno.EACCES, 1, "out/[a-z]*"
    ),
    "an output that may not be written here at first": Fault(
        SUBMITTER, Call.OPEN_WRITE, Act.FAIL, 1, errno.EACCES, 1, "out/*"
    ),
    "an output that may not be read there at first": Fault(
        SESSION, Call.OPEN_READ, Act.FAIL, 1, errno.EACCES, 1, "workspace/jobs/*/work/*"
    ),
    "a submitted file that may not be removed at first": Fault(
        SUBMITTER, Call.UNLINK, Act.FAIL, 3, errno.EPERM, 1, "dropbox/[a-z]*.submitted"
    ),
    "an older file that may not be removed at first": Fault(
        SUBMITTER, Call.UNLINK, Act.FAIL, 1, errno.EPERM, 1, "out/.hpcb-*.old"
    ),
    "a job's folder that may not be made at first": Fault(
        RUNNER, Call.MKDIR, Act.FAIL, 1, errno.EACCES, 1, "workspace/jobs/*/a1*"
    ),
    "a script that is busy at first": Fault(
        RUNNER, Call.EXEC, Act.FAIL, 1, errno.ETXTBSY, 1, "workspace/jobs/*/job.sh"
    ),
    "an output that its runner does not find at first": Fault(
        RUNNER, Call.OPEN_READ, Act.FAIL, 1, errno.ENOENT, 1, "workspace/jobs/*/work/over"
    ),
}
"""Where something was lost, answered with an error, or left behind."""

SAMPLE = 3
"""So many of each kind the suite tries; others in each run."""

RANDOM = 150 if FULL else SAMPLE

STORMS = 50 if FULL else 1


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Round]:
    with judging(tmp_path_factory.mktemp("preload"), Round) as made:
        yield made


@pytest.fixture(scope="module")
def undisturbed(here: Round) -> tuple[dict[str, Any], dict[tuple[Role, Call], int]]:
    return calm(here), calls(here)


def chosen(seed: int) -> list[str]:
    """Return which of the defects that are known are tried."""
    names = sorted(ONCE_WRONG)
    return names if FULL else sorted(random.Random(seed).sample(names, SAMPLE))


@pytest.mark.timeout(1200)
def test_what_was_wrong_once_is_right(here: Round, undisturbed: Any) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    for name in chosen(seed):
        problems = disturbed(here, ONCE_WRONG[name], undisturbed[0])
        assert here.judge.hit, name
        assert not problems, (name, problems)


@pytest.mark.timeout(3600)
def test_a_fault_at_any_call_changes_nothing_in_the_end(here: Round, undisturbed: Any) -> None:
    seed = int(os.environ.get("HPC_BATCH_SEED", random.randrange(1 << 30) if FULL else 1))
    expected, seen = undisturbed
    hits = 0
    for number in range(RANDOM):
        draw = choose_strange if number % 3 == 2 else choose
        fault = draw(random.Random(f"{seed}.{number}"), seen)
        problems = disturbed(here, fault, expected)
        hits += bool(here.judge.hit)
        assert not problems, (f"seed {seed}.{number}", fault, here.judge.hit, problems)
    print(f"seed {seed}: {RANDOM} faults, {hits} hit")


@pytest.mark.timeout(3600)
def test_a_storm_of_failing_calls_changes_nothing_in_the_end(tmp_path: Path) -> None:
    seed = int(os.environ.get("HPC_BATCH_SEED", random.randrange(1 << 30) if FULL else 1))
    print(f"seed {seed}")
    stormy_world = hastened(tmp_path, Judge(built(tmp_path), tmp_path / "judge", tmp_path / "w"))
    try:
        expected = calm(stormy_world)
        for number in range(STORMS):
            storm = choose_storm(random.Random(f"{seed}.{number}"))
            problems = stormy(stormy_world, storm, expected)
            assert not problems, (f"seed {seed}.{number}", storm, problems)
    finally:
        stormy_world.end()


def test_a_lock_that_cannot_be_had_now_is_no_wrong_configuration(here: Round) -> None:
    here.one_pass()
    here.judge.arm(SUBMITTER, Call.OPEN_WRITE, Act.FAIL, 1, errno.ESTALE, 1, "state/lock")
    code = here.one_pass()
    here.judge.disarm()
    assert here.judge.hit
    assert (code, here.problems) == (75, []), here.said
    assert here.one_pass() == 0
