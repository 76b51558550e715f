"""From the bytes of a drop to a Description, or to every problem at once.

Scalars are texts as they were written: `010`, `no`, `1e3` and `12:30:00` stay what the user typed.
Keys of args, input_map and output_map share one name space, because a template sees them all. What
depends on the template (whether inputs and outputs share a folder) is checked by `check_names`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Literal, Union

from hpc_batch.errors import JobFileError, Problem
from hpc_batch.jobfile.nodes import ListNode, MapNode, Node, Scalar
from hpc_batch.jobfile.tree import read

JOB_BYTES = 1 << 20
"""The largest job file."""
TOLD = 50
"""So many problems of one file are told."""
NAME_BYTES = 255
"""The longest file name that file systems take."""

KEYS = ("script", "args", "input_map", "output_map")
OURS = ("job", "hpc")
"""Nodes that we wrote: ignored, so that a renamed `.finished` is a retry."""
RESERVED_NAMES = ("input", "output")
"""Base names that a job's working folder holds already."""

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_END = b"\n..."
"""How a file ends, white space aside, that is marked as complete."""

Value = Union[str, "list[str]"]


@dataclass(frozen=True)
class Description:
    """A job file that was found to be right, as far as it can be told from the file alone."""

    script: str
    """A template's name; whether there is one, the template's package says."""
    args: dict[str, Value] = field(default_factory=dict)
    input_map: dict[str, str] = field(default_factory=dict)
    """Key: absolute path of the input here."""
    output_map: dict[str, str] = field(default_factory=dict)
    """Key: absolute path of the destination here."""
    extra: dict[str, Any] = field(default_factory=dict)
    """The x-... keys: texts, lists and mappings of them."""
    source: MapNode = field(default_factory=lambda: MapNode((), False, 1), repr=False)
    """The file's tree, for the answer to repeat and for lines."""

    def line_of(self, section: str, key: str) -> int | None:
        """Return the line of a key in a section of the file."""
        for name, _ in _pairs(self.source.get(section)):
            if name.text == key:
                return name.line
        return None


def parse(data: bytes, reserved: Collection[str] = ()) -> Description:
    """Return the job that a file describes. Raises JobFileError with every problem.

    `reserved` are the names that templates get from the site; no key may shadow them.
    """
    description, problems = examine(data, reserved)
    if problems or description is None:
        raise JobFileError(told(problems))
    return description


def examine(
    data: bytes, reserved: Collection[str] = ()
) -> tuple[Description | None, list[Problem]]:
    """Return what of a file can be understood, and every problem that the file alone shows.

    So a caller can look for further problems in what is right, and tell them all at once. The
    description is None when the file is no mapping.
    """
    root, problems = read(data, JOB_BYTES)
    check = _Check(problems, frozenset(reserved))
    if not isinstance(root, MapNode):
        if root is not None:
            kind = "a list" if isinstance(root, ListNode) else "one text"
            text = f"the file is {kind}; a job file is a mapping that begins with 'script: NAME'"
            check.wrong(None, text)
        return None, problems
    check.top(root)
    script = root.get("script")
    description = Description(
        script=script.text if isinstance(script, Scalar) else "",
        args={name.text: _value(value) for name, value in _pairs(root.get("args"))},
        input_map={name.text: value.text for name, value in _paths(root.get("input_map"))},
        output_map={name.text: value.text for name, value in _paths(root.get("output_map"))},
        extra={name.text: plain(value) for name, value in root.pairs if _is_extra(name.text)},
        source=root,
    )
    return description, problems


def told(problems: list[Problem]) -> list[Problem]:
    """Return problems in the order of the file; of very many, the first and a count."""
    ordered = sorted(problems, key=lambda p: p.line or 0)
    more = len(ordered) - TOLD
    if more <= 0:
        return ordered
    return [*ordered[:TOLD], Problem(None, f"and {more} more problems")]


def settled(data: bytes) -> Literal["no", "mapping", "end"]:
    """Tell whether a drop may be complete: a mapping with a `script`, and one with YAML's end mark.

    A prefix of YAML is usually YAML too, so "mapping" alone does not say that nothing is missing.
    """
    root, _ = read(data, JOB_BYTES)
    script = root.get("script") if isinstance(root, MapNode) else None
    if script is None or (isinstance(script, Scalar) and not script.text):
        return "no"
    return "end" if data.rstrip().endswith(_END) else "mapping"


def check_names(description: Description, layout: str) -> list[Problem]:
    """Return what is wrong with the base names of a job's files in a template's layout.

    In "flat" all files share one folder; in "split" inputs and outputs have a folder each.
    """
    problems: list[Problem] = []
    seen: dict[tuple[str, str], str] = {}
    for what, paths in (("input", description.input_map), ("output", description.output_map)):
        for key, path in paths.items():
            name, line = path.rsplit("/", 1)[-1], description.line_of(f"{what}_map", key)
            where = f"{what}_map: {key}"
            if wrong := _name_problem(name, path):
                problems.append(Problem(line, f"{where}: {wrong}"))
                continue
            folder = "" if layout == "flat" else what
            first = seen.setdefault((folder, name), where)
            if first != where:
                text = f"{where} has the same base name as {first}: {_shown(name)}; rename one"
                problems.append(Problem(line, text))
    return problems


def _name_problem(name: str, path: str) -> str | None:
    if name in ("", ".", ".."):
        return f"{_shown(path)} names a folder, not a file"
    if name in RESERVED_NAMES:
        return (
            f"the base name {_shown(name)} is reserved in a job's working folder; rename the file"
        )
    length = len(name.encode("utf-8", "surrogateescape"))
    if length > NAME_BYTES:
        return f"the base name has {length} bytes; file systems take {NAME_BYTES}"
    return None


class _Check:
    """The checks of one file; each adds to one list of problems."""

    def __init__(self, problems: list[Problem], reserved: frozenset[str]) -> None:
        self._problems = problems
        self._reserved = reserved
        self._names: dict[str, str] = {}

    def wrong(self, line: int | None, text: str) -> None:
        """Note a problem."""
        self._problems.append(Problem(line, text))

    def top(self, root: MapNode) -> None:
        """Check the whole file."""
        for name, value in root.pairs:
            if name.text == "script":
                self._script(value)
            elif name.text in KEYS:
                self._section(name.text, value)
            elif not (name.text in OURS or _is_extra(name.text) or name.is_absent):
                from difflib import get_close_matches  # only for what is wrong

                near = get_close_matches(name.text.lower(), KEYS, n=1, cutoff=0.6)
                hint = f"did you mean '{near[0]}'?" if near else "your own keys begin with 'x-'"
                self.wrong(name.line, f"unknown key {_shown(name.text)}; {hint}")
        if root.get("script") is None:
            self.wrong(None, "the file has no 'script: NAME', the template to run")
        self._same_paths(root)

    def _script(self, value: Node) -> None:
        if not isinstance(value, Scalar):
            self.wrong(value.line, "script must be one text, a template's name")
        elif not value.text:
            self.wrong(value.line, "script has no value; it is a template's name")
        elif not _is_sendable(value.text):
            self.wrong(value.line, "script holds a NUL or half a character")

    def _section(self, section: str, value: Node) -> None:
        if not isinstance(value, MapNode):
            if not (isinstance(value, Scalar) and value.is_absent):
                self.wrong(value.line, f"{section} must be a mapping of 'key: value' lines")
            return
        for name, item in value.pairs:
            if name.is_absent:
                continue
            self._name(section, name)
            if section == "args":
                self._argument(f"args: {_bare(name)}", item)
            else:
                self._path(section, name, item)

    def _name(self, section: str, name: Scalar) -> None:
        if not _KEY.fullmatch(name.text):
            self.wrong(
                name.line,
                f"{section}: the key {_shown(name.text)} must hold only letters, digits and '_', "
                "and not begin with a digit",
            )
        elif name.text in self._reserved:
            self.wrong(
                name.line, f"{section}: the site uses the name {_bare(name)}; choose another"
            )
        elif self._names.setdefault(name.text, section) != section:
            self.wrong(
                name.line,
                f"{section}: the key {_bare(name)} is also in {self._names[name.text]}; "
                "a template could not tell them apart",
            )

    def _argument(self, where: str, value: Node) -> None:
        if isinstance(value, MapNode):
            self.wrong(value.line, f"{where} must be a text or a list of texts")
            return
        for item in value.items if isinstance(value, ListNode) else (value,):
            if not isinstance(item, Scalar):
                self.wrong(item.line, f"{where}: an item of the list must be a text")
            elif item.is_absent:
                self.wrong(item.line, f"{where} has no value; write '' for an empty text")
            elif not _is_sendable(item.text):
                self.wrong(item.line, f"{where} holds a NUL or half a character")

    def _path(self, section: str, name: Scalar, value: Node) -> None:
        if not isinstance(value, Scalar):
            problem = " must be one absolute path"
        elif not value.text:
            problem = " has no value; it is an absolute path"
        elif not _is_sendable(value.text):
            problem = " holds a NUL or half a character"
        elif not value.text.startswith("/"):
            problem = f" = {_shown(value.text)} must be an absolute path"
        else:
            return
        self.wrong(value.line, f"{section}: {_bare(name)}{problem}")

    def _same_paths(self, root: MapNode) -> None:
        """Refuse two outputs at one path, and an output that would overwrite an input."""
        inputs = {_normal(value): _bare(name) for name, value in _paths(root.get("input_map"))}
        outputs: dict[str, str] = {}
        for name, value in _paths(root.get("output_map")):
            path = _normal(value)
            if path in inputs:
                self.wrong(
                    value.line,
                    f"output_map: {_bare(name)} would overwrite the input '{inputs[path]}'",
                )
            first = outputs.setdefault(path, _bare(name))
            if first != _bare(name):
                self.wrong(
                    value.line,
                    f"output_map: {_bare(name)} goes to the same path as '{first}'",
                )


def plain(node: Node) -> Any:
    """Return a tree as texts, lists and dicts."""
    if isinstance(node, Scalar):
        return node.text
    if isinstance(node, ListNode):
        return [plain(item) for item in node.items]
    return {name.text: plain(value) for name, value in node.pairs}


def _text(node: Node | None) -> str:
    return node.text if isinstance(node, Scalar) else ""


def _value(node: Node) -> Value:
    return [_text(item) for item in node.items] if isinstance(node, ListNode) else _text(node)


def _pairs(node: Node | None) -> tuple[tuple[Scalar, Node], ...]:
    return node.pairs if isinstance(node, MapNode) else ()


def _paths(node: Node | None) -> list[tuple[Scalar, Scalar]]:
    return [
        (name, value)
        for name, value in _pairs(node)
        if isinstance(value, Scalar) and value.text.startswith("/")
    ]


def _normal(path: Scalar) -> str:
    normal = os.path.normpath(path.text)
    return normal[1:] if normal.startswith("//") else normal


def _is_extra(key: str) -> bool:
    return key.startswith("x-") and len(key) > 2


def _is_sendable(text: str) -> bool:
    """Tell whether a text can be an argument or a path: bytes without NUL."""
    if "\0" in text:
        return False
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _bare(name: Scalar) -> str:
    is_plain = len(name.text) <= 60 and _KEY.fullmatch(name.text)
    return name.text if is_plain else _shown(name.text)


def _shown(text: str) -> str:
    """Return a text as a message quotes it: one line, not too long."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
