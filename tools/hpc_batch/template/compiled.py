"""A template together with the names that are known: every decision made, ready to be filled in.

Nothing here depends on values. The text is cut at its placeholders into literal text and pieces;
each piece knows its context and what to refuse. One compilation serves every job that gives the
same names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Collection, Mapping, Union

from hpc_batch.template import evaluation, filters, lexer, rules
from hpc_batch.template.directives import leading_lines
from hpc_batch.template.finding import Finding, did_you_mean
from hpc_batch.template.parameters import ArgType
from hpc_batch.template.placeholders import CANDIDATE, Placeholder, find
from hpc_batch.template.reader import Refusal
from hpc_batch.template.shape import HereDocument, Lexed, Spot

OUTSIDE = "outside"
"""The context of placeholders in a template that no shell interprets."""

_INNER_DOCUMENT = "it stands in a here-document that expands nothing, inside $(…)"
"""Some versions of bash look for quotes, parentheses and the delimiter in there."""


@dataclass(frozen=True)
class Piece:
    """A placeholder in the body."""

    placeholder: Placeholder
    line: int
    context: str
    whole: bool
    """A list may stand here."""
    variable: str
    """The variable of the preamble, without its prefix."""
    raw: bool
    plain: str | None
    """Why only plain text may stand here: a value of the operator's is evaluated again."""


@dataclass(frozen=True)
class Body:
    """The text of a here-document with a quoted delimiter, in which values stand literally."""

    document: HereDocument
    pieces: tuple[str | Piece, ...]


Part = Union[str, Piece, Body]


@dataclass
class Compiled:
    """What `render` fills in."""

    head: str = ""
    """The shebang and the leading comments; the preamble follows."""
    parts: list[Part] = field(default_factory=list)
    """Head's placeholders are none, except in directives of batch systems."""
    body_at: int = 0
    """Index of the first part behind the preamble."""
    pieces: list[Piece] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True)
class Names:
    """Who gives the names that a template uses."""

    known: frozenset[str] | None
    """All names; None: any may be known."""
    trusted: frozenset[str]
    """Those that the operator gives."""


class Compiler:
    """Compiles one template for one set of names."""

    def __init__(
        self, name: str, text: str, shell: str | None, args: Mapping[str, ArgType], names: Names
    ) -> None:
        self.name = name
        self.text = text
        self.shell = shell
        self.args = args
        self.names = names
        self.result = Compiled()
        self.variables: dict[str, str] = {}
        self.line = lexer.Lexer(text, "sh", None).line

    def compile(self) -> Compiled:
        """Return the compiled template, with every error in it."""
        try:
            if self.shell is None:
                lexed = self._outside()
            else:
                lexed = lexer.lex(self.text, self.shell, self.names.known)
        except Refusal as error:
            self._unknown_everywhere()
            self._say(error.at, error.text)
            return self.result
        evaluated: dict[int, str] = {}
        for mark in evaluation.marks(lexed) if self.shell else ():
            evaluated.setdefault(mark.spot.placeholder.start, mark.text)
        spots = [s for s in lexed.spots if s.context not in rules.UNTOUCHED]
        pieces = {s.placeholder.start: self._piece(s, evaluated) for s in spots}
        self._cut(spots, pieces)
        return self.result

    def _say(self, at: int, text: str) -> None:
        self.result.findings.append(Finding(self.line(at), text, self.name))

    def _outside(self) -> Lexed:
        """Find the placeholders of a text in an unknown language."""
        lexed = Lexed()
        lines = {line.strip(): number for number, line in enumerate(self.text.split("\n"), 1)}
        for found in find(self.text):
            known = self.names.known
            unknown = known is not None and found.name not in known and not found.optional
            closed = lines.get(found.name, 0) > self.line(found.start)
            if closed and not found.french and (unknown or known is None):
                continue
            lexed.spots.append(Spot(found, OUTSIDE, 0, unknown=unknown, whole=False))
        return lexed

    def _unknown_everywhere(self) -> None:
        """Name unknown candidates of a text that could not be read: one may be the reason."""
        known = self.names.known
        lines = set(self.text.split("\n"))
        if known is None:
            return
        for found in find(self.text):
            comment = self.text[: found.start].rpartition("\n")[2].lstrip().startswith("#")
            if not (found.name in known or found.optional or found.name in lines or comment):
                self._say(found.start, self._unknown(found))

    def _unknown(self, placeholder: Placeholder) -> str:
        known = self.names.known or frozenset()
        near = did_you_mean(placeholder.name, known)
        way_out = near or f"; known are {', '.join(sorted(known)) or 'no names'}"
        return f"{placeholder}: there is no {placeholder.name} in this job or in [hpc_env]{way_out}"

    def _piece(self, spot: Spot, evaluated: Mapping[int, str]) -> Piece | None:
        """Return what stands for a spot, or None and say why nothing may."""
        placeholder = spot.placeholder
        trusted = placeholder.name in self.names.trusted
        declared = self.args.get(placeholder.name)
        plain_filters = not placeholder.filters
        integer = placeholder.last_filter in filters.INTEGERS or bool(
            declared and declared.integer and plain_filters
        )
        harmless = integer or bool(declared and declared.harmless and plain_filters)
        raw = placeholder.last_filter == "raw"
        problem = filters.problem(placeholder)
        again = evaluated.get(placeholder.start)
        if spot.unknown:
            self._say(placeholder.start, self._unknown(placeholder))
        elif problem is not None:
            self._say(placeholder.start, problem)
        elif raw and spot.refusal is None:
            return self._made(spot, raw=True, plain=None)
        else:
            if spot.context == OUTSIDE:
                return self._made(spot, raw=placeholder.last_filter == "json", plain=None)
            refused = rules.refusal(spot, integer=integer, trusted=trusted)
            if refused is None and again is not None and not (harmless or trusted):
                refused = again
            if refused is None:
                again = again if not harmless else None
                inner = spot.document is not None and spot.depth > 0
                return self._made(spot, raw=False, plain=_INNER_DOCUMENT if inner else again)
            self._say(placeholder.start, f"{placeholder}: {refused}")
        return None

    def _made(self, spot: Spot, *, raw: bool, plain: str | None) -> Piece:
        placeholder = spot.placeholder
        piece = Piece(
            placeholder,
            self.line(placeholder.start),
            spot.context,
            spot.whole,
            self._variable(placeholder),
            raw,
            plain,
        )
        self.result.pieces.append(piece)
        return piece

    def _variable(self, placeholder: Placeholder) -> str:
        """Return the variable of an expression: its name, and its filters' names."""
        expression = placeholder.expression
        if expression not in self.variables:
            wanted = "__".join((placeholder.name, *(name for name, _ in placeholder.filters)))
            name, number = wanted, 1
            taken = {*self.variables.values(), *self._plain_names()} - {placeholder.name}
            while name in taken:
                number += 1
                name = f"{wanted}_{number}"
            self.variables[expression] = name
        return self.variables[expression]

    def _plain_names(self) -> Collection[str]:
        """Return the names that other placeholders use as they are."""
        return {m["name"] or m["name2"] for m in CANDIDATE.finditer(self.text)}

    def _cut(self, spots: list[Spot], pieces: Mapping[int, Piece | None]) -> None:
        """Cut the text at its spots, and at the place of the preamble."""
        lines = self.text.split("\n")
        count = leading_lines(self.text)
        head = len("\n".join(lines[:count])) + 1 if 0 < count < len(lines) else 0
        head = len(self.text) if count >= len(lines) else head
        parts = self.result.parts
        at, body = 0, False
        document: HereDocument | None = None
        inner: list[str | Piece] = []

        def text_to(stop: int) -> None:
            nonlocal at, body
            if not body and stop >= head:
                parts.append(self.text[at:head])
                self.result.body_at = len(parts)
                at, body = max(at, head), True
            if stop > at:
                parts.append(self.text[at:stop])
            at = max(at, stop)

        for spot in spots:
            start, end = spot.placeholder.start, spot.placeholder.end
            if spot.document is not document:
                if document is not None:
                    inner.append(self.text[at : document.end])
                    parts.append(Body(document, tuple(inner)))
                    at, inner = document.end, []
                document = spot.document
                if document is not None:
                    text_to(document.start)
            if document is not None:
                inner.append(self.text[at:start])
            else:
                text_to(start)
            piece = pieces[start]
            if piece is not None:
                (parts if document is None else inner).append(piece)
            at = end
        if document is not None:
            inner.append(self.text[at : document.end])
            parts.append(Body(document, tuple(inner)))
            at = document.end
        text_to(len(self.text))
