"""A YAML file as a tree of texts: strict, and safe to read from anybody.

PyYAML scans and parses, and its events are counted before anything is built from them: an alias
bomb, thousands of brackets or a flood of nodes end the reading where they pass a limit, without
recursion. Nothing is resolved or constructed. Anchors, aliases, tags and duplicate keys are
reported, each with its line; so are the errors of PyYAML itself, some of which are no YAMLError
(a version of 5,000 digits, an escape beyond Unicode).

PyYAML has two parsers. The one in C is twenty times as fast, and says the same of plain and simple
files (ALIKE); those it reads. Whatever else there is, and whatever it complains about, is read by
the one in Python, so that nothing depends on which of them a machine has.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Iterator, NoReturn

import yaml
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
)

from hpc_batch.errors import Problem
from hpc_batch.jobfile.nodes import ListNode, MapNode, Node, Scalar

DEPTH = 8
"""Mappings and lists in one another, the outermost counted."""
NODES = 10_000
ALIKE = re.compile(r"(?!.*(?:---|[^\n]{1000}))[\n -~]*", re.DOTALL)
UNLIKE = re.compile(r"[\\!&*?%|>]")
"""Both parsers see the same in a text that is the first and holds none of the second: no escapes,
tags, anchors, directives, blocks or document marks, no line that is nearly too long for a key."""
ALIKE_BYTES = 64 << 10
"""Larger files are read event by event, and no further than the limits."""
SMALL_BYTES = 8192
"""Trees of files up to this size are kept for the next look."""
REMEMBERED_BYTES = 4 << 20
"""When files of so many bytes are, all are forgotten; a tree takes some ten times its file."""


class _Stop(Exception):
    """Reading ends here; the problem is noted already."""


@dataclass
class _Open:
    """A mapping or list whose end has not come yet."""

    is_map: bool
    in_brackets: bool
    line: int
    parts: list[Node] = field(default_factory=list)
    """Of a mapping: keys and values in turn."""


def read(
    data: bytes, most_bytes: int, most_nodes: int = NODES
) -> tuple[Node | None, list[Problem]]:
    """Return the tree of a file and what is wrong with it.

    The tree is None where the file could not be read to its end; with problems and a tree, the
    problems are of a kind that leaves its shape standing (an anchor, a duplicate key).
    """
    look = _read if len(data) > SMALL_BYTES else _REMEMBERED.read
    root, problems = look(data, most_bytes, most_nodes)
    return root, list(problems)


def _read(data: bytes, most_bytes: int, most_nodes: int) -> tuple[Node | None, tuple[Problem, ...]]:
    """Read a file for the first time."""
    reader = _Reader(most_nodes)
    root = None
    try:
        text = reader.text_of(data, most_bytes)
        for event in reader.events(text):
            root = reader.take(event, root)
        if root is None:
            reader.problem(None, "the file is empty; a job file begins with 'script: NAME'")
    except _Stop:
        root = None
    return root, tuple(reader.problems)


class _Remembered:
    """What came of reading small files, for the next time.

    A drop is looked at several times while it is taken: has it settled, and still, and is it right?
    """

    def __init__(self) -> None:
        self._found: dict[tuple[bytes, int, int], tuple[Node | None, tuple[Problem, ...]]] = {}
        self._bytes = 0

    def read(
        self, data: bytes, most_bytes: int, most_nodes: int
    ) -> tuple[Node | None, tuple[Problem, ...]]:
        """Read a file as `_read` does."""
        key = (data, most_bytes, most_nodes)
        found = self._found.get(key)
        if found is None:
            if self._bytes > REMEMBERED_BYTES:
                self._found, self._bytes = {}, 0
            found = self._found[key] = _read(*key)
            self._bytes += len(data)
        return found


_REMEMBERED = _Remembered()


class _Reader:
    """The events of one file on their way into a tree."""

    def __init__(self, most_nodes: int) -> None:
        self.problems: list[Problem] = []
        self._most_nodes = most_nodes
        self._nodes = 0
        self._documents = 0
        self._open: list[_Open] = []

    def problem(self, line: int | None, text: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(line, text))

    def _stop(self, line: int | None, text: str) -> NoReturn:
        self.problem(line, text)
        raise _Stop

    def text_of(self, data: bytes, most_bytes: int) -> str:
        """Return the text of a file that is neither too large nor binary."""
        if len(data) > most_bytes:
            self._stop(None, f"the file is larger than {most_bytes} bytes")
        if (zero := data.find(b"\0")) >= 0:
            line = data.count(b"\n", 0, zero) + 1
            self._stop(line, f"the file holds a NUL (byte {zero}); job files are UTF-8 text")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            self._stop(
                line,
                f"the file is not UTF-8: byte {error.start} is {data[error.start]:#04x}; such a "
                f'byte of a path is written as "\\udc{data[error.start]:02x}", with the quotes',
            )

    def events(self, text: str) -> Iterator[Event]:
        """Yield PyYAML's events; what it cannot read is a problem."""
        known = _events_alike(text)
        if known is not None:
            yield from known
            return
        loader: Any = None
        try:
            loader = yaml.SafeLoader(text)
            while loader.check_event():
                yield loader.get_event()
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            shown = f"U+{ord(text[error.position]):04X}"
            self._stop(
                line, f"{shown} cannot stand there as it is; write it as an escape in quotes"
            )
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            said = ": ".join(part for part in (error.context, error.problem) if part)
            self._stop(mark.line + 1 if mark else None, f"the file is not YAML: {said}")
        except (yaml.YAMLError, ValueError, OverflowError):
            # A number of too many digits in a %YAML line, an escape beyond U+10FFFF.
            where = loader.line + 1 if loader else None
            self._stop(where, "the file is not YAML: a number or an escape is out of range")

    def take(self, event: Event, root: Node | None) -> Node | None:
        """Take one event; return the root once it is complete."""
        line = event.start_mark.line + 1  # type: ignore[union-attr]
        if isinstance(event, DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._stop(line, "the file holds several documents; one job per file")
        if isinstance(event, NodeEvent):
            self._check(event, line)
        if isinstance(event, CollectionStartEvent):
            self._open.append(
                _Open(isinstance(event, MappingStartEvent), bool(event.flow_style), line)
            )
            if len(self._open) > DEPTH:
                self._stop(line, f"the file is nested deeper than {DEPTH} levels")
        elif isinstance(event, ScalarEvent):
            return self._add(Scalar(_paired(event.value), event.style or "", line), root)
        elif isinstance(event, AliasEvent):
            return self._add(Scalar("", "'", line), root)
        elif isinstance(event, CollectionEndEvent):
            return self._add(self._closed(self._open.pop()), root)
        return root

    def _check(self, event: NodeEvent, line: int) -> None:
        self._nodes += 1
        if self._nodes > self._most_nodes:
            self._stop(line, f"the file holds more than {self._most_nodes} values")
        if isinstance(event, AliasEvent):
            self.problem(line, f"there is the alias *{event.anchor}; write the value out")
        elif event.anchor is not None:
            self.problem(
                line, f"there is the anchor &{event.anchor}; anchors are not for job files"
            )
        tag = getattr(event, "tag", None)
        if tag is not None:
            self.problem(line, f"there is the tag {_shown(tag)}; values are texts and need none")

    def _add(self, node: Node, root: Node | None) -> Node | None:
        if not self._open:
            return node
        self._open[-1].parts.append(node)
        return root

    def _closed(self, opened: _Open) -> Node:
        if not opened.is_map:
            return ListNode(tuple(opened.parts), opened.in_brackets, opened.line)
        pairs: list[tuple[Scalar, Node]] = []
        first: dict[str, int] = {}
        for key, value in zip(opened.parts[::2], opened.parts[1::2]):
            if not isinstance(key, Scalar):
                self.problem(key.line, "a key is one text, not a list or a mapping")
                continue
            if key.is_absent:
                self.problem(key.line, "a key is empty")
            elif key.text == "<<" and not key.style:
                self.problem(key.line, "the merge key '<<' is not for job files; write it out")
            elif key.text in first:
                self.problem(
                    key.line,
                    f"the key {_shown(key.text)} stands there twice, first in line "
                    f"{first[key.text]}",
                )
            first.setdefault(key.text, key.line)
            pairs.append((key, value))
        return MapNode(tuple(pairs), opened.in_brackets, opened.line)


def _events_alike(text: str) -> list[Event] | None:
    """Return the events of a text that both parsers see alike, by the one in C.

    None where they may differ, where there is none in C, and for a text that is no YAML.
    """
    parser: Any = getattr(yaml, "CSafeLoader", None)
    if parser is None or len(text) > ALIKE_BYTES or UNLIKE.search(text):
        return None
    if not ALIKE.fullmatch(text):
        return None
    try:
        return list(yaml.parse(text, Loader=parser))
    except (yaml.YAMLError, ValueError, OverflowError):
        return None


def _paired(text: str) -> str:
    r"""Return a text whose surrogates are either pairs joined, or bytes as Python names them.

    JSON writes "\ud83d\ude00" for one character. A lone surrogate U+DC80 to U+DCFF stands for a
    byte of a path that is not UTF-8 (PEP 383).
    """
    if text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text):
        return text
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    try:
        return joined.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return joined


def _shown(text: str) -> str:
    """Return a text as a message quotes it: one line, not too long."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
