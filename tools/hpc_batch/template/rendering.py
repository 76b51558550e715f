"""Fills values into a compiled template: the preamble, and the body that refers to it.

The rendered script is complete: run by hand it does the same again. All values stand at its top;
only what cannot be referred to (batch systems' directives, here-documents without expansion, other
languages, `|raw`) stands in place, and only if nothing can be misread there.
"""

from __future__ import annotations

from typing import Mapping, Sequence, Union

from hpc_batch.template import filters, preamble, rules
from hpc_batch.template.compiled import OUTSIDE, Body, Compiled, Piece
from hpc_batch.template.filters import FilterError, Value
from hpc_batch.template.finding import Finding
from hpc_batch.template.parameters import PLAIN, shown
from hpc_batch.template.shape import HereDocument

ARGUMENT_BYTES = 131071
"""Linux refuses longer arguments of a program (MAX_ARG_STRLEN, with the final NUL 128 KiB)."""


def to_bytes(text: str) -> bytes:
    """Return the bytes of a value. Raises UnicodeEncodeError for half a surrogate pair."""
    return text.encode("utf-8", "surrogateescape")


class Rendering:
    """One rendering of a compiled template."""

    def __init__(
        self, name: str, shell: str | None, compiled: Compiled, values: Mapping[str, Value]
    ) -> None:
        self.name = name
        self.shell = shell
        self.compiled = compiled
        self.values = values
        self.findings: list[Finding] = []
        self.results: dict[str, Value | None] = {}
        self.assigned: dict[str, Value] = {}

    def run(self) -> bytes:
        """Return the script; it is meaningless when there are findings."""
        head: list[str] = []
        body: list[str] = []
        for index, part in enumerate(self.compiled.parts):
            out = head if index < self.compiled.body_at else body
            if isinstance(part, str):
                out.append(part)
            elif isinstance(part, Piece):
                out.append(self._piece(part))
            else:
                out.append(self._body(part))
        lines = self._preamble()
        top = to_bytes("".join(head))
        if lines and top and not top.endswith(b"\n"):
            top += b"\n"
        return top + lines + to_bytes("".join(body))

    def _say(self, piece: Piece, text: str) -> None:
        finding = Finding(piece.line, f"{piece.placeholder}: {text}", self.name)
        if finding not in self.findings:
            self.findings.append(finding)

    def _result(self, piece: Piece) -> Value | None:
        """Return the value of an expression, evaluated once."""
        expression = piece.placeholder.expression
        if expression not in self.results:
            try:
                self.results[expression] = filters.evaluate(piece.placeholder, self.values)
            except FilterError as error:
                self._say(piece, str(error))
                self.results[expression] = None
            except KeyError as error:
                self._say(piece, f"there is no {error.args[0]} in this job")
                self.results[expression] = None
        return self.results[expression]

    def _piece(self, piece: Piece) -> str:
        value = self._result(piece)
        if value is None:
            return ""
        if isinstance(value, list) and not piece.whole:
            text = (
                f"it is a list; write it as a word of its own, or <<{piece.placeholder.name}|join>>"
            )
            self._say(piece, text)
            return ""
        elements = value if isinstance(value, list) else [value]
        for element in elements:
            self._check(piece, element)
        if piece.raw:
            return str(value)
        if piece.context in rules.LITERAL or piece.context == OUTSIDE:
            return str(value)
        self.assigned[piece.variable] = value
        if isinstance(value, list):
            return preamble.refer_list(piece.variable, len(value), self.shell or "sh")
        return rules.reference(piece.context, piece.variable)

    def _check(self, piece: Piece, value: str) -> None:
        """Say why a value cannot stand where this piece does."""
        plain = PLAIN.fullmatch(value) is not None
        if len(value) * 3 > ARGUMENT_BYTES and piece.context not in rules.UNLIMITED:
            size = len(value.encode("utf-8", "surrogatepass"))
            if size > ARGUMENT_BYTES:
                text = f"the value has {size} bytes, and no argument may have more than 128 KiB; "
                self._say(piece, text + "give it as an input file, or in a here-document")
        if piece.plain is not None and value and not plain:
            self._say(piece, f"{piece.plain} (the value {shown(value)} is not plain text)")
        elif piece.raw:
            return
        elif piece.context == "directive" and not plain:
            text = f"the value {shown(value)} cannot stand in a batch system's directive"
            self._say(piece, f"{text}; only letters, digits and ._/:@%+=,- can")
        elif piece.context == OUTSIDE and value and not plain:
            text = f"the value {shown(value)} could be read as program text; "
            name = piece.placeholder.name
            self._say(piece, text + f"write <<{name}|json>> for a quoted string, or <<{name}|raw>>")

    def _body(self, body: Body) -> str:
        """Return a here-document's text that no shell expands, with its values in place."""
        document = body.document
        texts: list[str] = []
        last: Piece | None = None
        for part in body.pieces:
            if isinstance(part, str):
                texts.append(part)
                continue
            text = self._piece(part)
            if not part.raw:
                self._check_literal(part, text, tabs=document.tabs)
            texts.append(text)
            last = part
        whole = "".join(texts)
        own = "".join(part if isinstance(part, str) else "x" for part in body.pieces)
        if last is not None and _ends(document, whole) > _ends(document, own):
            text = f"a line that begins with {document.delimiter!r} could end the here-document"
            self._say(last, f"{text}; use another delimiter")
        return whole

    def _check_literal(self, piece: Piece, value: str, *, tabs: bool) -> None:
        printable = all(c in "\n\t" or c.isprintable() for c in value)
        if not printable or (self.shell == "sh" and not value.isascii()):
            text = f"the value {shown(value)} cannot stand in a here-document that expands nothing"
            self._say(piece, f"{text}; write <<EOF without quotes, and \\$ for your own $")
        elif tabs and (value.startswith("\t") or "\n\t" in value):
            self._say(piece, "`<<-` would remove the tabs in this value; write `<<` instead")

    def _preamble(self) -> bytes:
        if self.shell is None:
            return b""
        lines: list[bytes] = []
        for variable, value in self.assigned.items():
            if isinstance(value, list):
                if value:
                    lines.append(preamble.assign_list(variable, _bytes(value), self.shell))
            else:
                lines.append(preamble.assign(variable, _bytes([value])[0], self.shell))
        text = b"".join(lines)
        if self.shell == "sh" and b'"$HPC_NL"' in text:
            text = preamble.NEWLINE_LINES + text
        return text


def _ends(document: HereDocument, text: str) -> int:
    """Return how many lines begin with the delimiter: bash 5.2 ends some here-documents there."""
    lines = text.split("\n")
    if document.tabs:
        lines = [line.lstrip("\t") for line in lines]
    return sum(line.startswith(document.delimiter) for line in lines)


def _bytes(values: Sequence[str]) -> list[bytes]:
    return [to_bytes(value) for value in values]


Given = Union[str, bytes, Sequence[Union[str, bytes]]]
"""A value as `render` takes it."""


def as_value(given: Given) -> Value:
    """Return a given value as text or a list of texts. Raises ValueError with what is wrong."""
    if isinstance(given, (str, bytes)):
        return _as_text(given)
    return [_as_text(element) for element in given]


def _as_text(given: str | bytes) -> str:
    text = given if isinstance(given, str) else given.decode("utf-8", "surrogateescape")
    if "\0" in text:
        raise ValueError("holds a NUL character, which no program can be given")
    try:
        to_bytes(text)
    except UnicodeEncodeError:
        raise ValueError(f"{shown(text)} is not valid Unicode") from None
    return text
