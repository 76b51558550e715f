"""What looks like a placeholder: `<<name>>`, `<<name|filter|filter('x',1)>>`, and `«name»`.

This is only the shape. Whether a candidate is a placeholder or shell text (`cat <<EOF>>log`,
`$((1<<b>>c))`) is decided by the names that are known and by the place where it stands: see
`lexer`. Inside a placeholder there are no spaces, except in a filter's quoted arguments; those are
literal strings and numbers, never names or operators, so that an expression can do nothing but
what its filters do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_STRING = r"'(?:[^'\\\n]|\\[^\n])*'|\"(?:[^\"\\\n]|\\[^\n])*\""
_ARGUMENT = rf"(?:{_STRING}|-?[0-9]+)"
_FILTER = rf"\|[A-Za-z_]+(?:\((?:{_ARGUMENT}(?:,[ ]?{_ARGUMENT})*)?\))?"
_INSIDE = rf"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<filters>(?:{_FILTER})*)"
CANDIDATE = re.compile(
    f"<<{_INSIDE}>>|«{_INSIDE.replace('<name>', '<name2>').replace('<filters>', '<filters2>')}»",
    re.ASCII,
)
ONE_FILTER = re.compile(rf"\|(?P<name>[A-Za-z_]+)(?:\((?P<arguments>(?:{_STRING}|[^'\")])*)\))?")


@dataclass(frozen=True)
class Placeholder:
    """A candidate in a template's text."""

    start: int
    end: int
    name: str
    filters: tuple[tuple[str, str], ...]
    """Name and source of the arguments of each filter, in order."""
    french: bool
    """Written as «name», which no shell reads as an operator."""

    @property
    def expression(self) -> str:
        """What Jinja2 evaluates."""
        calls = (f"|{name}({args})" if args else f"|{name}" for name, args in self.filters)
        return self.name + "".join(calls)

    def __str__(self) -> str:
        return f"«{self.expression}»" if self.french else f"<<{self.expression}>>"

    @property
    def optional(self) -> bool:
        """Whether the name may be missing: its first filter is `default`."""
        return bool(self.filters) and self.filters[0][0] == "default"

    @property
    def last_filter(self) -> str:
        return self.filters[-1][0] if self.filters else ""


def find(text: str) -> list[Placeholder]:
    """Return every candidate of a text, in order."""
    found = []
    for match in CANDIDATE.finditer(text):
        french = match["name2"] is not None
        name, filters = (
            (match["name2"], match["filters2"]) if french else (match["name"], match["filters"])
        )
        calls = tuple((m["name"], m["arguments"] or "") for m in ONE_FILTER.finditer(filters))
        found.append(Placeholder(match.start(), match.end(), name, calls, french))
    return found
