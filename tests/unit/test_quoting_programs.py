"""Random programs: the shell itself says what a template means.

A program is composed from commands, quotes, substitutions, here-documents and control flow. It is
run once as it is, with `:V:` in place of each placeholder; what its programs receive then, with
`:V:` replaced by a value, is what the rendered template must give them. No expectation is written
by hand, so nothing is expected that a shell does not do.
"""

from __future__ import annotations

import random
from typing import Callable

import pytest
from shell_lab import FULL, NASTY, SHELLS, Outcome, shell_lab

from hpc_batch import template
from hpc_batch.errors import TemplateError

STAND_IN = b":V:"
PROGRAMS = 1000 if FULL else 50
VALUES = 3
HARD = [v for v in NASTY if len(v) < 300]


class Composer:
    """Composes one random program; `<<x>>` marks the places of the value."""

    def __init__(self, seed: str, shell: str) -> None:
        self.chance = random.Random(seed)
        self.shell = shell
        self.bodies: list[str] = []
        self.number = 0

    def one(self, *choices: Callable[[], str] | str) -> str:
        choice = self.chance.choice(choices)
        return choice if isinstance(choice, str) else choice()

    def script(self) -> str:
        lines = [self.line(3) for _ in range(self.chance.randint(2, 6))]
        return f"#!/bin/{self.shell}\nb=q; u=\n" + "".join(lines) + "probe end\n"

    def line(self, depth: int) -> str:
        """Return a command with the bodies of its here-documents."""
        saved, self.bodies = self.bodies, []
        text = self.command(depth) + self.one("", "", " # it's <<x>> \"", " ") + "\n"
        text += "".join(self.bodies)
        self.bodies = saved
        return text

    def command(self, depth: int) -> str:
        simple = (self.simple, self.simple, self.document, self.document)
        if depth <= 0:
            return self.one(*simple)
        compound: list[Callable[[], str]] = [
            lambda: f"if {self.flat()}; then\n{self.line(depth - 1)}fi",
            lambda: f"case {self.word()} in\n zz) probe n;;\n *) {self.flat()}\n;; esac",
            lambda: f"for i in {self.word()} {self.word()}; do\n{self.line(depth - 1)}done",
            lambda: f"( {self.flat()} )",
            lambda: f"{{ {self.flat()}; }}",
            lambda: f"{self.flat()} && {self.flat()}",
            lambda: f'v={self.word()}; probe "$v"',
            lambda: f"f() {{\n{self.line(depth - 1)}}}\nf",
            lambda: f"! {self.flat()}",
            lambda: f"v=$(\n{self.line(depth - 1)}printf '%s.' {self.word()}\n)\nprobe \"$v\"",
            lambda: f'while read -r l; do probe "$l"; {self.flat()}; break; done < /etc/passwd',
        ]
        if self.shell == "bash":
            compound += [
                lambda: f'a=({self.word()} {self.word()}); probe "${{a[@]}}"',
                lambda: f"[[ {self.word()} == zz{self.word()} ]]; probe $?",
                lambda: f"pin <<< {self.word()}",
                lambda: f"(( 1 << 2 )); {self.flat()}",
            ]
        return self.one(*simple, *compound)

    def flat(self) -> str:
        """Return a command on one line, without here-documents."""
        return self.simple()

    def simple(self) -> str:
        return " ".join(["probe", *(self.word() for _ in range(self.chance.randint(1, 3)))])

    def document(self) -> str:
        self.number += 1
        delimiter = f"EOF{self.number}"
        tabs = self.one("", "-")
        body = "".join(self.body_line() for _ in range(self.chance.randint(1, 3)))
        self.bodies.append(f"{body}{delimiter}\n")
        return f"pin <<{tabs}{delimiter}"

    def body_line(self) -> str:
        parts = [
            "<<x>>",
            "it's",
            '"',
            "$b",
            "${b}",
            "\\$",
            " EOF",
            "a ",
            "#",
            "$(printf '%s.' <<x>>)",
        ]
        text = "".join(self.chance.choice(parts) for _ in range(self.chance.randint(1, 4)))
        return ("_" + text).replace("$<<", "$ <<").replace("\\<<", "\\\\<<") + "\n"

    def word(self, depth: int = 2) -> str:
        """Return a word that is never empty in the source."""
        return "".join(self.part(depth) for _ in range(self.chance.randint(1, 3)))

    def part(self, depth: int) -> str:
        parts: list[Callable[[], str] | str] = [
            "<<x>>",
            "<<x>>",
            "a",
            "-",
            "/",
            ":",
            "\\'",
            '\\"',
            "\\\\",
            "$b",
            "«x»",
            lambda: "'" + self.text("'") + "'",
            lambda: '"' + self.double(depth) + '"',
        ]
        if depth > 0:
            parts += [
                lambda: f"\"$(printf '%s.' {self.word(depth - 1)})\"",
                lambda: f'"${{u:-{self.inner()}}}"',
                lambda: f'"${{b:+{self.inner()}}}"',
            ]
        if self.shell == "bash":
            parts += [lambda: "$'" + self.text("'").replace("\\", "") + "'"]
        return self.one(*parts)

    def inner(self) -> str:
        return "".join(self.one("<<x>>", "a", " ", "$b", "\\}") for _ in range(2))

    def text(self, avoid: str) -> str:
        parts = ["<<x>>", "a", " ", "$b ", "`", '"', "#", "(", "\\n", "\n", "<<y", "EOF"]
        chosen = (self.chance.choice(parts) for _ in range(self.chance.randint(0, 4)))
        return "".join(part for part in chosen if part not in avoid)

    def double(self, depth: int) -> str:
        parts: list[Callable[[], str] | str] = [
            "<<x>>",
            "<<x>>",
            "a",
            " ",
            "'",
            '\\"',
            "\\\\",
            "\\$",
            "$b",
            "${b}",
            "#",
            "(",
            ";",
        ]
        if depth > 0:
            parts.append(lambda: f"$(printf '%s.' {self.word(depth - 1)})")
        return "".join(self.one(*parts) for _ in range(self.chance.randint(0, 4)))


def replaced(outcome: Outcome, value: bytes) -> list[tuple[str, tuple[bytes, ...]]]:
    """Return the calls of the stand-in's run, with the value in its place."""
    return [
        (n, tuple(part.replace(STAND_IN, value) for part in parts)) for n, parts in outcome.calls
    ]


def composed(shell: str) -> list[tuple[str, Outcome]]:
    """Return the programs that the shell accepts, and what they do with the stand-in."""
    texts = [Composer(f"{shell} {n} {FULL}", shell).script() for n in range(PROGRAMS)]
    texts = [text for text in texts if "<<x>>" in text or "«x»" in text]
    stand_in = [
        t.encode().replace(b"<<x>>", STAND_IN).replace("«x»".encode(), STAND_IN) for t in texts
    ]
    outcomes = shell_lab().run(stand_in, shell)
    return [(text, o) for text, o in zip(texts, outcomes) if not o.stderr and o.calls[-1:] == END]


END = (("probe", (b"end",)),)


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_a_rendered_program_does_what_the_shell_does_with_the_text(shell: str) -> None:
    if SHELLS[shell] is None:
        pytest.skip(f"there is no {shell} here")
    chance = random.Random(f"values {shell}")
    scripts: list[bytes] = []
    wanted: list[list[tuple[str, tuple[bytes, ...]]]] = []
    programs = composed(shell)
    assert len(programs) > PROGRAMS / 2
    refused = []
    for number, (text, outcome) in enumerate(programs):
        found = template.parse(f"composed{number}", text.encode())
        for value in chance.sample(HARD, VALUES):
            try:
                scripts.append(template.render(found, {"x": value}, {}))
            except TemplateError as error:
                refused.append((text, str(error)))
                break
            wanted.append(replaced(outcome, value))
    assert len(refused) < len(programs) / 10, refused
    for script, calls, outcome in zip(scripts, wanted, shell_lab().run(scripts, shell)):
        assert list(outcome.calls) == calls, script.decode("utf-8", "replace")
        assert outcome.stderr == b"", script.decode("utf-8", "replace")
