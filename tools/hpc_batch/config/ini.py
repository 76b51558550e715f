"""The syntax of the `.ini` file: text to entries, every one with its line.

The dialect is that of Python's configparser without interpolation, which read these files in the
original project: `[section]`, `key = value` or `key: value`, indented lines continue a value, lines
that begin with '#' or ';' are comments, and there are no comments behind a value. configparser
itself names no line for a wrong value and stops at the first duplicate, so it cannot report
all problems at once; a property test holds the two to the same result.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hpc_batch.errors import Problem

_HEADER = re.compile(r"\[([^]]+)\]\s*(?:[#;].*)?")
_ENTRY = re.compile(r"([^=:]+?)\s*[=:]\s*(.*)")


@dataclass(frozen=True)
class Entry:
    """One `key = value`, or a section's header where `key` is empty."""

    section: str
    key: str
    value: str
    """Stripped; the lines of a continued value are joined with newlines."""
    line: int


def parse(text: str) -> tuple[list[Entry], list[Problem]]:
    """Return what stands in a file, in order, and the lines that are neither entry nor comment."""
    entries: list[Entry] = []
    problems: list[Problem] = []
    parts: list[str] = []
    section, indent, is_open = "", 0, False
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if stripped.startswith(("#", ";")):
            continue
        if not stripped:
            if is_open:
                parts.append("")
            continue
        depth = len(line) - len(line.lstrip())
        if is_open and depth > indent:
            parts.append(stripped)
            continue
        if is_open:
            entries[-1] = _closed(entries[-1], parts)
            is_open = False
        indent = depth
        if header := _HEADER.fullmatch(stripped):
            section = header[1]
            entries.append(Entry(section, "", "", number))
        elif not section:
            problems.append(Problem(number, "stands before the first [section]"))
        elif entry := _ENTRY.fullmatch(stripped):
            entries.append(Entry(section, entry[1], "", number))
            parts, is_open = [entry[2]], True
        else:
            problems.append(Problem(number, "is neither 'key = value' nor '[section]'"))
    if is_open:
        entries[-1] = _closed(entries[-1], parts)
    return entries, problems


def _closed(entry: Entry, parts: list[str]) -> Entry:
    return Entry(entry.section, entry.key, "\n".join(parts).rstrip(), entry.line)
