"""How checks are run, whatever they look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_batch.doctor import CHECKS, Subject
from hpc_batch.doctor.checks import Check, Level, Verdict, examine, is_wrong
from hpc_batch.errors import ConfigError, Unreachable


def subject(*, offline: bool = False) -> Subject:
    return Subject(Path("x.ini"), lambda text: None, offline=offline)


def check(name: str, level: Level, *needs: str, connects: bool = False) -> Check:
    return Check(name, lambda s: Verdict(level, name), needs, connects)


def levels(checks: list[Check], *only: str, offline: bool = False) -> dict[str, str]:
    return {f.check: f.level for f in examine(checks, subject(offline=offline), only)}


@pytest.mark.parametrize(("level", "then"), [("ok", "ok"), ("warning", "ok"), ("unknown", "ok")])
def test_what_works_does_not_stop_others(level: Level, then: str) -> None:
    assert levels([check("a", level), check("b", "ok", "a")]) == {"a": level, "b": then}


def test_what_needs_a_failed_check_is_skipped_and_so_on() -> None:
    found = levels(
        [check("a", "error"), check("b", "ok", "a"), check("c", "ok", "b"), check("d", "ok")]
    )
    assert found == {"a": "error", "b": "skipped", "c": "skipped", "d": "ok"}


def test_only_some_run_with_what_they_need_which_shows_when_it_failed() -> None:
    good = [check("a", "ok"), check("b", "ok", "a"), check("c", "ok")]
    assert levels(good, "b") == {"b": "ok"}
    bad = [check("a", "error"), check("b", "ok", "a"), check("c", "error")]
    assert levels(bad, "b") == {"a": "error", "b": "skipped"}


def test_offline_nothing_that_connects_is_run() -> None:
    checks = [check("a", "ok"), check("b", "error", connects=True), check("c", "ok", "b")]
    assert levels(checks, offline=True) == {"a": "ok", "b": "skipped", "c": "skipped"}


def test_an_error_of_ours_is_a_verdict_with_its_hint() -> None:
    def unreachable(s: Subject) -> Verdict:
        raise Unreachable("no route", "look at the cable")

    def wrong(s: Subject) -> Verdict:
        raise ConfigError("one", "two")

    found = list(examine([Check("a", unreachable), Check("b", wrong)], subject()))
    assert [(f.level, f.detail, f.fix) for f in found] == [
        ("error", "no route", "look at the cable"),
        ("error", "one; two", ""),
    ]
    assert is_wrong(found)


def test_checks_stand_after_what_they_need() -> None:
    seen: set[str] = set()
    for one in CHECKS:
        assert set(one.needs) <= seen, one.name
        seen.add(one.name)


def test_what_is_not_known_counts_as_wrong_and_a_warning_does_not() -> None:
    for level, wrong in (("ok", False), ("warning", False), ("skipped", False), ("unknown", True)):
        found = list(examine([check("a", level)], subject()))  # type: ignore[arg-type]
        assert is_wrong(found) == wrong
