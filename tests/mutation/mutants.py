"""The mutants: the source with one safeguard taken out, each by itself.

    written    intents, second looks, checks, limits: one exact piece of source and what stands in
               its place (`written`)
    sync       every call that makes something durable, found in the source (`durability`)

A piece of source that is not found exactly once is an error: who changes such a line changes its
mutant, too. `tests/unit/test_mutants.py` sees to it.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from pathlib import Path

from mutation import durability
from mutation.written import WRITTEN

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Mutant:
    """One safeguard that is taken out."""

    name: str
    changed: dict[str, bytes]
    """Path below the checkout: the whole new content."""
    tests: tuple[str, ...]
    """Which tests to try, the most likely to notice first; each is one call of pytest. After them
    ALL are tried."""
    why: str
    """What is taken out, in words."""


def mutants(patterns: tuple[str, ...] = ()) -> list[Mutant]:
    """Return all mutants, or those whose names match a pattern or hold it. Raises Outdated."""
    found = [
        Mutant(w.name, {w.path: w.applied(CHECKOUT)}, w.tests + tests_of(w.path), w.why)
        for w in WRITTEN
        if _wanted(w.name, patterns)
    ]
    for site in durability.sites(CHECKOUT):
        name = f"sync/{site.name}"
        if _wanted(name, patterns):
            changed = durability.without(CHECKOUT, site)
            tests = POWER + tests_of(site.path)
            found.append(Mutant(name, changed, tests, "it is made durable"))
    return found


def names() -> set[str]:
    """Return the names of all mutants."""
    found = {f"sync/{site.name}" for site in durability.sites(CHECKOUT)}
    return found | {w.name for w in WRITTEN}


def _wanted(name: str, patterns: tuple[str, ...]) -> bool:
    return not patterns or any(p in name or fnmatch.fnmatchcase(name, p) for p in patterns)


POWER = ("tests/unit/test_durable.py",)
"""What knows what a power cut takes away."""

TESTS = {
    "admission": ("tests/integration/test_main_loop.py", "tests/unit/test_known_jobs.py"),
    "answer": ("tests/unit/test_steps_killed.py",),
    "arrival": ("tests/unit/test_frames.py", "tests/integration/test_session.py"),
    "attempt": ("tests/integration/test_attempt.py tests/integration/test_runner.py",),
    "channel": ("tests/unit/test_frames.py", "tests/integration/test_session.py"),
    "claims": ("tests/unit/test_claims.py",),
    "collecting": (
        "tests/unit/test_collecting.py",
        "tests/integration/test_doubts.py",
        "tests/integration/test_main_loop.py",
    ),
    "data_channel": ("tests/unit/test_sending.py", "tests/integration/test_session.py"),
    "durable": ("tests/unit/test_files.py",),
    "frames": ("tests/unit/test_frames.py", "tests/integration/test_session.py"),
    "guard": ("tests/unit/test_guard.py", "tests/integration/test_runner.py"),
    "handover": ("tests/unit/test_handover.py",),
    "heartbeat": ("tests/unit/test_guard.py", "tests/integration/test_runner.py"),
    "inputs": ("tests/unit/test_sending.py", "tests/integration/test_main_loop.py"),
    "intake": (
        "tests/unit/test_steps_killed.py",
        "tests/faults",
        "tests/integration/test_bad_input.py",
    ),
    "journal": ("tests/unit/test_records.py", "tests/unit/test_journal_damage.py"),
    "listing": ("tests/unit/test_settling.py", "tests/integration/test_bad_input.py"),
    "leftovers": ("tests/integration/test_session.py",),
    "loading": ("tests/unit/test_frames.py", "tests/integration/test_session.py"),
    "looking": (
        "tests/unit/test_files.py",
        "tests/unit/test_passing_errors.py",
        "tests/unit/test_steps_killed.py",
    ),
    "lookout": ("tests/unit/test_queuer.py tests/unit/test_pilot.py",),
    "naming": (
        "tests/unit/test_files.py",
        "tests/unit/test_spool.py tests/unit/test_store.py tests/unit/test_placing.py",
    ),
    "pilot": ("tests/unit/test_pilot.py tests/unit/test_queuer.py",),
    "placing": ("tests/unit/test_placing.py",),
    "plan": ("tests/unit/test_plan.py",),
    "preparation": ("tests/integration/test_attempt.py tests/integration/test_runner.py",),
    "process": ("tests/integration/test_attempt.py tests/integration/test_runner.py",),
    "queuer": ("tests/unit/test_queuer.py",),
    "reaping": ("tests/unit/test_queuer.py tests/unit/test_dismissal.py",),
    "receiving": ("tests/unit/test_sending.py", "tests/integration/test_session.py"),
    "records": (
        "tests/unit/test_records.py",
        "tests/unit/test_steps_killed.py",
        "tests/faults",
    ),
    "restore": ("tests/unit/test_durable.py", "tests/integration/test_main_loop.py"),
    "result": ("tests/integration/test_attempt.py tests/integration/test_runner.py",),
    "runner": ("tests/unit/test_runner.py", "tests/integration/test_runner.py"),
    "sending": ("tests/unit/test_sending.py", "tests/integration/test_session.py"),
    "settling": (
        "tests/unit/test_settling.py",
        "tests/unit/test_passing_errors.py",
        "tests/integration/test_bad_input.py",
    ),
    "slots": ("tests/unit/test_slots.py tests/unit/test_queuer.py",),
    "spool": (
        "tests/unit/test_spool.py",
        "tests/integration/test_session.py",
        "tests/integration/test_older_journals.py",
    ),
    "staging": (
        "tests/unit/test_sending.py",
        "tests/integration/test_main_loop.py",
        "tests/integration/test_session.py",
    ),
    "state": (
        "tests/unit/test_state.py",
        "tests/unit/test_passing_errors.py",
        "tests/integration/test_bad_input.py",
    ),
    "steps": (
        "tests/unit/test_pass.py",
        "tests/integration/test_doubts.py",
        "tests/integration/test_bad_input.py",
        "tests/model/test_conformance.py",
    ),
    "store": ("tests/unit/test_store.py", "tests/integration/test_session.py"),
    "submitter": (
        "tests/unit/test_pass.py",
        "tests/integration/test_older_journals.py",
        "tests/unit/test_known_jobs.py tests/end_to_end/test_trouble.py",
        "tests/integration/test_main_loop.py",
    ),
    "tenure": ("tests/unit/test_tenure.py", "tests/integration/test_runner.py"),
    "tidying": ("tests/unit/test_known_jobs.py tests/end_to_end/test_clean.py",),
    "upkeep": ("tests/unit/test_known_jobs.py",),
    "verbs": ("tests/unit/test_results.py", "tests/integration/test_session.py"),
    "verdict": ("tests/integration/test_attempt.py tests/integration/test_runner.py",),
    "writing": ("tests/unit/test_files.py", "tests/unit/test_steps_killed.py"),
    "work": ("tests/unit/test_work.py", "tests/integration/test_runner.py"),
    "workspace": ("tests/unit/test_spool.py", "tests/integration/test_session.py"),
}
"""Module: the tests that know it best."""

ALL = (
    "tests/unit/test_spool.py tests/unit/test_store.py tests/unit/test_frames.py "
    "tests/unit/test_claims.py tests/unit/test_pilot.py tests/unit/test_queuer.py "
    "tests/unit/test_placing.py tests/unit/test_plan.py tests/unit/test_dismissal.py "
    "tests/unit/test_status.py tests/unit/test_explanation.py tests/model",
    "tests/simulation/test_power_loss.py",
    "tests/faults",
    "tests/simulation",
    "tests/integration/test_main_loop.py tests/integration/test_session.py",
    "tests/integration/test_runner.py tests/integration/test_attempt.py",
    "tests/integration/test_bad_input.py tests/integration/test_service_hosts.py",
    "tests/integration/test_pilot_policy.py tests/integration/test_pass_over_ssh.py",
    "tests/end_to_end/test_crash_points.py tests/end_to_end/test_kills.py "
    "tests/end_to_end/test_trouble.py tests/end_to_end/test_clean.py",
)
"""What is tried of every mutant after those, in this order."""


def tests_of(path: str) -> tuple[str, ...]:
    """Return the tests that know a module best."""
    return TESTS.get(Path(path).stem, ())
