"""The nodes of a YAML file's tree: texts, lists and mappings, each with its line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Union


class Scalar(NamedTuple):
    """A text. There are many, and of all values these are made the fastest."""

    text: str
    """As a reader of YAML has it, escapes and folding undone, never a number or a date."""
    style: str
    """How it was written: "" plain, ' or \" quoted, | or > as a block."""
    line: int

    @property
    def is_absent(self) -> bool:
        """Whether nothing stood there, as in `key:`."""
        return not self.style and not self.text


@dataclass(frozen=True)
class ListNode:
    """A list."""

    items: tuple[Node, ...]
    in_brackets: bool
    line: int


@dataclass(frozen=True)
class MapNode:
    """A mapping; its keys are texts, each there once unless a problem was reported."""

    pairs: tuple[tuple[Scalar, Node], ...]
    in_brackets: bool
    line: int

    def get(self, key: str) -> Node | None:
        """Return the value of a key, None when there is none."""
        for name, value in self.pairs:
            if name.text == key:
                return value
        return None


Node = Union[Scalar, ListNode, MapNode]
