"""The corpus of templates: context of each placeholder, verdict, and what the programs receive."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from shell_lab import FULL, NASTY, SHELLS, shell_lab

from hpc_batch import template
from hpc_batch.errors import TemplateError
from hpc_batch.template.lexer import lex

CORPUS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "data" / "quoting_corpus.json").read_text("utf-8")
)["cases"]
VALUES_PER_CASE = 60 if FULL else 4
TYPO = "hd_undef_ph"
"""Its `<<nope>>` is text to the lexer, but to a template a name that nothing has."""


def shells(case: dict[str, Any]) -> list[str]:
    return ["bash" if shell == "bash" else "sh" for shell in case["shells"]]


PAIRS: list[Any] = [pytest.param(c, s, id=f"{c['id']}-{s}") for c in CORPUS for s in shells(c)]
CALLED = [c for c in CORPUS if "calls" in c and c["id"] != TYPO]


def source(case: dict[str, Any], shell: str) -> bytes:
    text: str = case["template"]
    head = "" if text.startswith("#!") else f"#!/bin/{shell}\n"
    return (head + text).encode("utf-8")


def errors(case: dict[str, Any], shell: str, trusted: tuple[str, ...] = ()) -> list[str]:
    found = template.parse(case["id"], source(case, shell))
    names = set(case["parameters"]) - set(trusted)
    return [f.text for f in template.check(found, names, trusted)]


@pytest.mark.parametrize(("case", "shell"), [p for p in PAIRS if "contexts" in p.values[0]])
def test_each_placeholder_has_the_context_that_the_corpus_says(
    case: dict[str, Any], shell: str
) -> None:
    lexed = lex(case["template"], shell, set(case["parameters"]))
    assert [s.context for s in lexed.spots if not s.unknown] == case["contexts"]


@pytest.mark.parametrize(("case", "shell"), PAIRS)
def test_each_template_gets_the_verdict_of_the_corpus(case: dict[str, Any], shell: str) -> None:
    found = errors(case, shell)
    verdict = case["verdict"]
    if case["id"] == TYPO:
        assert len(found) == 1 and "there is no nope" in found[0]
    elif verdict in ("accept", "restricted-alphabet"):
        assert found == []
    elif verdict == "refuse":
        assert found
    elif verdict == "integer-only":
        assert len(found) == 1 and "#HPC --arg x:int" in found[0]
    else:
        assert verdict == "trusted-only"
        assert found and all("choose the program" in text for text in found)
        assert errors(case, shell, tuple(case["parameters"])) == []


@pytest.mark.parametrize(
    ("case", "shell"), [p for p in PAIRS if p.values[0]["verdict"] == "integer-only"]
)
def test_declared_integers_may_stand_where_the_shell_counts(
    case: dict[str, Any], shell: str
) -> None:
    text = f"#!/bin/{shell}\n#HPC --arg x:int\n" + case["template"]
    found = template.parse(case["id"], text.encode())
    assert template.check(found, (), ()) == []
    script = template.render(found, {"x": "1"}, {})
    assert b"HPC_V_x='1'\n" in script
    outcome = shell_lab().run([script], shell)[0]
    assert outcome.stderr == b""


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_programs_receive_the_values_byte_for_byte(shell: str) -> None:
    if SHELLS[shell] is None:
        pytest.skip(f"there is no {shell} here")
    chance = random.Random(f"corpus {shell}")
    scripts, expected, labels = [], [], []
    refused = 0
    for case in CALLED:
        if shell not in shells(case):
            continue
        found = template.parse(case["id"], source(case, shell))
        names = case["parameters"]
        for values in zip(*(chance.sample(NASTY * 3, VALUES_PER_CASE) for _ in names)):
            given = dict(zip(names, values))
            try:
                scripts.append(template.render(found, given, {}))
            except TemplateError:
                assert any(c.startswith("heredoc_q") for c in case["contexts"]), case["id"]
                refused += 1
                continue
            expected.append([_call(call, given) for call in case["calls"]])
            labels.append((case["id"], given))
    assert len(scripts) > 300 and refused < len(scripts) / 10
    for label, script, wanted, outcome in zip(
        labels, scripts, expected, shell_lab().run(scripts, shell)
    ):
        assert list(outcome.calls) == wanted, (label, script.decode("utf-8", "replace"))
        assert outcome.stderr == b"", (label, script.decode("utf-8", "replace"))


def _call(call: dict[str, Any], given: dict[str, bytes]) -> tuple[str, tuple[bytes, ...]]:
    if "stdin" in call:
        return ("pin", (_filled(call["stdin"], given),))
    return ("probe", tuple(_filled(word, given) for word in call["argv"]))


def _filled(text: str, given: dict[str, bytes]) -> bytes:
    return re.sub(rb"<<(\w+)>>", lambda m: given.get(m[1].decode(), m[0]), text.encode("utf-8"))
