"""Whatever a template's text is: it is understood or refused, and no value of a job is ever run.

The text is random tokens, most of it nonsense to a shell. What is accepted is run by real shells,
whatever they make of it, with values that would call `canary` if any shell ever evaluated them.
"""

from __future__ import annotations

import random

import pytest
from shell_lab import FULL, SHELLS, shell_lab

from hpc_batch import template
from hpc_batch.errors import TemplateError

SIGNS = """
<<x>> <<x>> <<x>> <<x>> <<x>> «x» ' ' " " " ` $ $( $(( ${ ${v:- ${v% ${v/ ${a[ ${#v} ${!v ${v:
$' $" $[ ) ) )) } } ] ( (( [ \\ \\ ; ;; & && | || >f <f >> < <<< <<EOF <<-EOF <<'EOF' # a b = v=
a=( a[0]= a[ fi esac + - * 1 : ! ~ @( ? % , / EOF <( >(
"""
WORDS = (
    *(
        " ",
        " ",
        " ",
        "\n",
        "\n",
        "\\\n",
        "\nEOF\n",
        "\nEOF\n",
        "\n\tEOF\n",
        " # ",
        " ]]",
        "{ ",
        "[[ ",
    ),
    *(
        "probe ",
        "probe ",
        "probe ",
        "pin ",
        "if ",
        "then ",
        "case ",
        "in ",
        "for v in ",
        "do ",
        "done\n",
    ),
    *(
        "=~ ",
        "== ",
        "-eq ",
        "local v=",
        "export v=",
        "f() {",
        "declare -a v=",
        "printf ",
        "[ ",
        "test ",
    ),
)
TOKENS = (*SIGNS.split(), *WORDS)
VALUES = (
    "$(canary)",
    "`canary`",
    "; canary ;",
    "\ncanary\n",
    "' ; canary ; '",
    '" ; canary ; "',
    "a[$(canary)]",
    ") ; canary ; (",
    "}; canary; {",
    "EOF\ncanary\n",
    "| canary",
    "x'\"$(canary)`canary`\"'\n canary;",
)
PROGRAMS = 6000 if FULL else 300


def text(chance: random.Random, shell: str) -> str:
    """Return a random text; quotes and parentheses are often closed, so that some are accepted."""
    parts: list[str] = []
    for _ in range(chance.randint(1, 7)):
        token = chance.choice(TOKENS)
        inner = "".join(chance.choice(TOKENS) for _ in range(chance.randint(0, 3)))
        closing = CLOSING.get(token)
        parts += [token, inner, closing] if closing and chance.random() < 0.9 else [token]
    return f"#!/bin/{shell}\nv=1; a=1\nprobe " + "".join(parts) + "\n"


CLOSING = {
    "'": "'",
    '"': '"',
    "`": "`",
    "$(": ")",
    "$((": "))",
    "${": "}",
    "${v:-": "}",
    "${v%": "}",
    "${v:": "}",
    "a[": "]=1",
    "${v/": "}",
    "${a[": "]}",
    "${!v": "}",
    "$'": "'",
    '$"': '"',
    "$[": "]",
    "(": ")",
    "((": "))",
    "{ ": ";}",
    "[[ ": " ]]",
    "<<EOF": "\n<<x>>\nEOF\n",
    "<<-EOF": "\n\t<<x>>\n\tEOF\n",
    "<<'EOF'": "\n<<x>>\nEOF\n",
    "a=(": ")",
    "<(": ")",
    ">(": ")",
    "@(": ")",
    "if ": ";then :;fi",
    "case ": " in *) :;;esac",
    "for v in ": ";do :;done",
    "f() {": "\n}",
}


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_no_text_makes_a_value_run(shell: str) -> None:
    if SHELLS[shell] is None:
        pytest.skip(f"there is no {shell} here")
    chance = random.Random(f"garbage {shell} {FULL}")
    scripts = []
    for _ in range(PROGRAMS):
        source = text(chance, shell)
        try:
            found = template.parse("garbage", source.encode())
            scripts.append(template.render(found, {"x": chance.choice(VALUES)}, {}))
        except TemplateError as error:
            assert error.problems
    assert len(scripts) > PROGRAMS / 20
    for name in ("bash", "sh") if shell == "sh" else ("bash",):
        for script, outcome in zip(scripts, shell_lab().run(scripts, name)):
            ran = [call for call in outcome.calls if call[0] == "canary"]
            assert not ran, script.decode("utf-8", "replace")
