"""The types that a template may declare for its arguments.

A type restricts values before anything is rendered. That is the only protection where the shell
evaluates what it reads (arithmetic), where a value becomes an option (a leading dash), and where
another program has separators of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

PLAIN = re.compile(r"[A-Za-z0-9._/:@%+=,-]+")
"""Values of these characters are the same text in every language and after any evaluation."""

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

TYPES = ("int", "number", "text", "name", "path")


@dataclass(frozen=True)
class ArgType:
    """What `#HPC --arg NAME:TYPE=DEFAULT` declares."""

    name: str
    kind: str = "text"
    """int, number, text, name, path, or choice."""
    choices: tuple[str, ...] = ()
    default: str | None = None
    """Used when a job does not give the argument; None: every job must give it."""

    @property
    def integer(self) -> bool:
        """Whether a value may stand in arithmetic."""
        return self.kind == "int"

    @property
    def harmless(self) -> bool:
        """Whether no value can do harm when it is evaluated a second time."""
        plain = self.kind == "choice" and all(PLAIN.fullmatch(c) for c in self.choices)
        return plain or self.kind in ("int", "number")

    def problem(self, value: str) -> str | None:
        """Return what is wrong with a value, or None."""
        return _CHECKS[self.kind](self, value)


def _text(_type: ArgType, _value: str) -> str | None:
    return None


def _int(_type: ArgType, value: str) -> str | None:
    if _INTEGER.fullmatch(value):
        inside = -(2**63) <= int(value[:30]) < 2**63 and len(value) <= 20
        return None if inside else "does not fit into 64 bits"
    if re.fullmatch(r"[+-]?[0-9]{1,20}", value):
        return f"is not written as an integer; write {int(value)}"
    return "is not an integer"


def _number(_type: ArgType, value: str) -> str | None:
    return None if _NUMBER.fullmatch(value) else "is not a decimal number"


def _path(_type: ArgType, value: str) -> str | None:
    if not value:
        return "is empty"
    if value.startswith("-"):
        return "begins with a dash, which programs read as an option; write ./ before it"
    if _CONTROL.search(value):
        return "holds a control character"
    return None


def _name(declared: ArgType, value: str) -> str | None:
    if "/" in value:
        return "holds a slash; a name has no folders"
    if value in (".", ".."):
        return "is no name of a file"
    return _path(declared, value)


def _choice(declared: ArgType, value: str) -> str | None:
    return None if value in declared.choices else f"is none of {', '.join(declared.choices)}"


_CHECKS = {
    "int": _int,
    "number": _number,
    "text": _text,
    "name": _name,
    "path": _path,
    "choice": _choice,
}


def shown(value: str) -> str:
    """Return a value for a message: quoted, and not too long."""
    text = value if len(value) <= 60 else value[:57] + "…"
    return repr(text)
