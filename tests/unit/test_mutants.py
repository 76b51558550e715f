"""The list of mutants fits the source: a list that rots would take nothing out any more."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from mutation import durability, mutants
from mutation.written import WRITTEN, Written

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("mutant", WRITTEN, ids=[w.name for w in WRITTEN])
def test_what_a_mutant_takes_out_is_there(mutant: Written) -> None:
    changed = mutant.applied(CHECKOUT)
    ast.parse(changed)
    assert changed != (CHECKOUT / mutant.path).read_bytes()


def test_every_mutant_has_a_name_of_its_own() -> None:
    names = [mutant.name for mutant in mutants.mutants()]
    assert len(set(names)) == len(names)


def test_calls_that_make_durable_are_found_on_both_sides() -> None:
    found = [site.name for site in durability.sites(CHECKOUT)]
    for name in (
        "answer:Answers.answer:durable.sync_files",
        "spool:Spool.finish_all:self._sync",
        "journal:Journal.append:files.write_end",
        "writing:append:effects.fsync",
    ):
        assert name in found


def test_what_is_left_out_is_there() -> None:
    assert set(durability.LEFT_OUT) <= {site.name for site in durability.every(CHECKOUT)}


def test_a_mutant_that_forgets_its_syncs_is_still_a_program() -> None:
    for site in durability.sites(CHECKOUT):
        for data in durability.without(CHECKOUT, site).values():
            ast.parse(data)


def test_the_tests_that_are_tried_exist() -> None:
    groups = [*mutants.POWER, *mutants.ALL, *(g for tests in mutants.TESTS.values() for g in tests)]
    missing = {w for g in groups for w in g.split() if not (CHECKOUT / w).exists()}
    assert missing <= {"tests/faults"}
