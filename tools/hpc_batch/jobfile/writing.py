r"""Texts and mappings as YAML that every reader understands the same way.

YAML 1.1 readers take `no`, `010` and `12:30:00` for something else than a text, YAML 1.2 readers
`0o17` and `1e3`, and some choke on characters that others write. So a text of ours stands plain
only when it begins with a letter, a slash or an underscore, holds nothing special and is no word
that any reader knows; as a block when it is printable text of several lines; otherwise in double
quotes, with escapes that both versions share. Bytes of a name that is not UTF-8 (lone surrogates,
PEP 383) appear as the four characters \xNN, but in job files, where our own reader takes them back.

Trees that were read are repeated with each scalar in its own style, unless that style would make
another reader fail or differ.
"""

from __future__ import annotations

import math
import os
import re
from functools import lru_cache
from typing import Any, Callable, Iterator, Mapping

import yaml
from yaml.events import (
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
    StreamStartEvent,
)

from hpc_batch.errors import JobFileError, Problem
from hpc_batch.jobfile.nodes import ListNode, MapNode, Node, Scalar

STEP = 4
"""Blanks per level."""
LONGEST_NUMBER = 300
"""Digits that every reader turns into a number without a complaint (Python stops at 4300)."""

_PLAIN = re.compile(
    r"[A-Za-z_/][A-Za-z0-9_/.+@%=-]*(?: [A-Za-z0-9_/.+@%=(-][A-Za-z0-9_/.,;()+@%=-]*)*"
)
_NUMBER = re.compile("[-+.0-9_eE:]+")
_WORDS = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"))
_SPECIAL = "[^\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010fffd]"
"""What YAML 1.1 or 1.2 reads as something else than itself, or not at all; a tab is added below.
Compiled where it is needed first: that takes milliseconds, and few texts need it."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_AS_IT_IS = re.compile(r"[ !#-\[\]-~]*")
"""What stands in double quotes without an escape, as most texts do."""
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


# ---- texts -----------------------------------------------------------------------------------


def readable(text: str) -> str:
    r"""Return a text without surrogates: bytes that are not UTF-8 become the characters \xNN."""
    return text if text.isascii() else _SURROGATE.sub(_spelt, text)


def _spelt(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def quoted(text: str) -> str:
    """Return a text in double quotes, on one line."""
    if not _AS_IT_IS.fullmatch(text):
        text = re.sub(_SPECIAL + '|["\\\\\n]', _escape, text)
    return f'"{text}"'


def _escape(found: re.Match[str]) -> str:
    character, code = found[0], ord(found[0])
    if character in _ESCAPES:
        return _ESCAPES[character]
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def is_plain(text: str) -> bool:
    """Tell whether a text needs no quotes for any reader."""
    return bool(_PLAIN.fullmatch(text)) and text.lower() not in _WORDS


def _is_block(text: str) -> bool:
    """Tell whether a text reads the same as a literal block: printable, no line ends in a blank."""
    return (
        "\n" in text
        and "\n" in text.rstrip("\n")
        and not text.endswith("\n\n")
        and not re.search(_SPECIAL, text.replace("\t", " "))
        and not any(line != line.rstrip() for line in text.split("\n"))
    )


def _scalar(text: str, indent: int) -> str:
    if "\n" not in text:
        return _of_one_line(text) if len(text) <= 100 else _plain_or_quoted(text)
    if not _is_block(text):
        return quoted(text)
    # The margin is told where the first line does not show it.
    head = "|" + (str(STEP) if text[0] in " \t\n" else "") + ("" if text.endswith("\n") else "-")
    margin = "\n" + " " * (indent + STEP)
    lines = text.rstrip("\n").split("\n")
    return head + "".join(margin + line if line else "\n" for line in lines)


def _plain_or_quoted(text: str) -> str:
    return text if is_plain(text) else quoted(text)


_of_one_line = lru_cache(maxsize=256)(_plain_or_quoted)
"""Most texts of an answer stand in the next one, too."""


# ---- mappings --------------------------------------------------------------------------------


def block(
    values: Mapping[str, Any], indent: int = 0, as_text: Callable[[str], str] = readable
) -> str:
    """Return a mapping as a block of YAML: texts, numbers, None, lists and mappings of them.

    `as_text` decides what becomes of surrogates.
    """
    lines: list[str] = []
    for key, value in values.items():
        lines += (_key(str(key), indent, as_text), _value(value, indent, as_text))
    return "".join(lines)


@lru_cache(maxsize=256)
def _key(key: str, indent: int, as_text: Callable[[str], str]) -> str:
    """Return a key as it begins its line; there are few, and they come again in each answer."""
    text = as_text(key)
    return f"{' ' * indent}{text if is_plain(text) and ' ' not in text else quoted(text)}:"


def _value(value: Any, indent: int, as_text: Callable[[str], str]) -> str:
    if isinstance(value, str):
        return f" {_scalar(as_text(value), indent)}\n"
    if isinstance(value, Mapping):
        return "\n" + block(value, indent + STEP, as_text) if value else " {}\n"
    if isinstance(value, (list, tuple)):
        margin = " " * (indent + STEP)
        items = [f"{margin}-{_item(item, indent + STEP, as_text)}" for item in value]
        return "\n" + "".join(items) if value else " []\n"
    if isinstance(value, (bytes, os.PathLike)):
        return f" {_scalar(as_text(os.fsdecode(value)), indent)}\n"
    return f" {_number(value)}\n"


def _item(value: Any, indent: int, as_text: Callable[[str], str]) -> str:
    if isinstance(value, (str, bytes, os.PathLike)):
        # No blocks: readers disagree from where their indentation counts in a list.
        text = as_text(os.fsdecode(value))
        return f" {_plain_or_quoted(text)}\n"
    return _value(value, indent, as_text)


def _number(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    if isinstance(value, float):
        return quoted(str(value))
    raise TypeError(f"{value!r} is no value of a job file")


def dump_job(description: Mapping[str, Any]) -> bytes:
    """Return a job file that ends with the end mark, so that it is taken at once.

    Texts come back from `parse` exactly as they are, numbers as `str` gives them. Raises
    JobFileError for values that a job file cannot hold (None, sets, objects).
    """
    problems: list[Problem] = []
    _find_foreign(description, "", problems)
    if problems:
        raise JobFileError(problems)
    return (block(description, as_text=str) + "...\n").encode("utf-8")


def _find_foreign(value: Any, where: str, problems: list[Problem]) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _find_foreign(item, f"{where}: {key}" if where else str(key), problems)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _find_foreign(item, where, problems)
    elif value is None:
        problems.append(Problem(None, f"{where} has no value; give '' for an empty text"))
    elif not isinstance(value, (str, bytes, int, float, os.PathLike)):
        kind = type(value).__name__
        problems.append(Problem(None, f"{where} is a {kind}; a job file holds texts and numbers"))


# ---- trees -----------------------------------------------------------------------------------


def repeated(tree: MapNode) -> str:
    """Return a tree that was read, as YAML, every scalar in its own style where that is safe."""
    plain = _plainly(tree, 0)
    return _by_pyyaml(tree) if plain is None else plain


def _by_pyyaml(tree: MapNode) -> str:
    """Return a tree as PyYAML writes it."""
    root = MapNode(tree.pairs, False, tree.line)
    events = [
        StreamStartEvent(),
        DocumentStartEvent(explicit=False),
        *_events(root, False),
        DocumentEndEvent(explicit=False),
        StreamEndEvent(),
    ]
    text: str = yaml.emit(
        events, Dumper=yaml.SafeDumper, indent=STEP, width=math.inf, allow_unicode=True
    )
    # PyYAML closes a document whose last text ends in several newlines; more is to follow here.
    return text[: -len("...\n")] if text.endswith("\n...\n") else text


def _plainly(tree: MapNode, indent: int) -> str | None:
    """Return a tree of nothing but mappings and plain texts, as PyYAML writes it; None for others.

    Most job files are such trees, and PyYAML takes a third of a millisecond for one.
    """
    lines: list[str] = []
    for key, value in tree.pairs:
        if not _stays_plain(key) or len(key.text) > 100 or not key.text:
            return None
        head = f"{' ' * indent}{key.text}:"
        if isinstance(value, MapNode):
            inner = None if value.in_brackets else _plainly(value, indent + STEP)
            if inner is None:
                return None
            lines.append(f"{head}\n{inner}")
        elif isinstance(value, Scalar) and _stays_plain(value):
            lines.append(f"{head} {value.text}\n")
        else:
            return None
    return "".join(lines) or None


def _stays_plain(node: Scalar) -> bool:
    """Tell whether a text stood plain, and may for every reader whatever it makes of numbers."""
    return not node.style and is_plain(node.text) and not _NUMBER.fullmatch(node.text)


def _events(node: Node, is_key: bool) -> Iterator[Event]:
    if isinstance(node, Scalar):
        text = readable(node.text)
        yield ScalarEvent(None, None, (True, True), text, style=_style(node, text, is_key))
    elif isinstance(node, ListNode):
        yield SequenceStartEvent(None, None, True, flow_style=node.in_brackets)
        for item in node.items:
            yield from _events(item, False)
        yield SequenceEndEvent()
    else:
        yield MappingStartEvent(None, None, True, flow_style=node.in_brackets)
        for key, value in node.pairs:
            yield from _events(key, True)
            yield from _events(value, False)
        yield MappingEndEvent()


def _style(node: Scalar, text: str, is_key: bool) -> str:
    """Return the style to repeat a scalar in: its own, or double quotes where that is not safe."""
    if re.search(_SPECIAL, text):
        return '"'
    if node.style:
        # Folded blocks fold differently from reader to reader where lines are indented.
        return "|" if node.style == ">" else node.style
    return "" if _is_harmless(text, is_key) else '"'


def _is_harmless(text: str, is_key: bool) -> bool:
    """Tell whether readers that make values of plain scalars can make one of this."""
    if len(text) > LONGEST_NUMBER and re.match("[-+.0-9]", text):
        return False
    if "_" in text and re.fullmatch("[-+.0-9_eE:]+", text):
        return False  # Is `._` a number? Readers disagree, and some fail.
    loader: Any = yaml.SafeLoader("")
    tag = loader.resolve(yaml.ScalarNode, text, (True, False))
    if is_key and tag != loader.DEFAULT_SCALAR_TAG:
        return False  # Two keys could become the same number.
    try:
        loader.construct_object(yaml.ScalarNode(tag, text))
    except (yaml.YAMLError, ValueError, OverflowError):
        return False
    return True
