"""Plain job files, read line by line: what most of them are, and what our client writes.

    script: NAME
    input_map:
      source: /a/path
    output_map:
      target: "/another path"
    ...

So each line is a key, and behind it one text or nothing; lines behind a key with nothing are
indented alike and belong to it. Such a file takes a tenth of the time that PyYAML needs, and is
read as PyYAML reads it. Whatever has anything else in it (a comment, a list, an escape, a key that
stands there twice) is left to PyYAML.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from hpc_batch.jobfile.nodes import MapNode, Node, Scalar

LINE = re.compile(
    r"""
    ([ ]{0,8})  ([A-Za-z_][A-Za-z0-9_-]{0,99}):
    (?: [ ] (?: (['"])([ !#-&(-\[\]-~]*)\3
              | ([A-Za-z0-9_/.][A-Za-z0-9_/.,+=@~-]*(?:[ ][A-Za-z0-9_/.,+=@~-]+)*) ) )?
    \n
    """,
    re.VERBOSE,
)
"""Indentation, key, and a text: in quotes, printable and without quotes and backslashes in it; or
without, and of nothing that means something to YAML in any place."""

END = "...\n"


def read(text: str) -> MapNode | None:
    """Return the tree of a plain job file; None for any other."""
    top: dict[str, tuple[Scalar, Scalar, dict[str, tuple[Scalar, Node]]]] = {}
    own: dict[str, tuple[Scalar, Node]] | None = None
    indent, end, line = "", 0, 0
    while found := LINE.match(text, end):
        end, line = found.end(), line + 1
        depth, key, quote, quoted, bare = found.groups("")
        name, value = Scalar(key, "", line), Scalar(quoted or bare, quote, line)
        if not depth:
            if key in top:
                return None
            top[key] = (name, value, {})
            own = top[key][2] if value.is_absent else None
        elif own is None or key in own or (own and depth != indent):
            return None
        else:
            own[key], indent = (name, value), depth
    if not top or text[end:] not in ("", END):
        return None
    pairs = ((name, _mapping(own.values()) if own else value) for name, value, own in top.values())
    return _mapping(pairs)


def _mapping(pairs: Iterable[tuple[Scalar, Node]]) -> MapNode:
    found = tuple(pairs)
    return MapNode(found, False, found[0][0].line)
