"""The words of a shell script: what is glued together between blanks and operators.

`<<name>>` at a place where a here-document may begin is a placeholder when the name is known, shell
text when it is not and a later line closes it, and refused when it could be both.
"""

from __future__ import annotations

import abc
import re
from typing import Container

from hpc_batch.template.expansions import NAME, Expansions
from hpc_batch.template.placeholders import Placeholder
from hpc_batch.template.reader import Refusal
from hpc_batch.template.shape import Spot, Word

METACHARACTERS = frozenset(" \t\n;&|<>()")

_PLAIN = re.compile(r"[^ \t\n;&|<>()\\'\"$`«\[=#?*+@!]+")
_ASSIGNED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:\[.*\])?\+?", re.DOTALL)
_LESS = re.compile("<+")


class Words(Expansions):
    """Words, arrays and patterns."""

    def __init__(self, text: str, shell: str, names: Container[str] | None) -> None:
        super().__init__(text, shell, names)
        self._lines: dict[str, int] = {}
        at = 0
        for line in text.split("\n"):
            self._lines[line] = at
            at += len(line) + 1

    # ---- is it a placeholder? ----------------------------------------------------------------

    def placeholder(self) -> Placeholder | None:
        """Return the placeholder at the cursor outside quotes; None where it is an operator."""
        found = self.candidate()
        if found is None or found.french:
            return found
        closed = self._lines.get(found.name, -1) > found.end
        if closed and (self.names is None or not self.known(found)):
            return None
        return found

    def _refusal_outside_quotes(self, found: Placeholder) -> str | None:
        if not found.french and self._lines.get(found.name, -1) > found.end:
            return (
                f"a later line {found.name!r} closes it like a here-document; "
                "rename the parameter or the here-document's delimiter"
            )
        return None

    def _angles(self) -> bool:
        """Tell whether the `<` at the cursor begin an operator; refuse what reads both ways."""
        run = _LESS.match(self.text, self.i)
        count = len(run[0]) if run else 0
        inner = self.candidates.get(self.i + count - 2)
        if inner is None or count < 3 or inner.french:
            return self.placeholder() is None
        doubtful = self.names is not None and self.known(inner)
        if count == 3 and doubtful:
            text = f"{inner} stands directly behind `<`; write `< {inner}` with a space"
            raise Refusal(self.i, text)
        if count == 4 and (doubtful or self.names is None):
            raise Refusal(self.i, f"{inner} stands where a here-document's delimiter belongs")
        return True

    def blanks(self) -> None:
        """Pass blanks and continued lines."""
        while self.i < self.end:
            if self.text[self.i] in " \t":
                self.i += 1
            elif self.text.startswith("\\\n", self.i):
                self.i += 2
            else:
                return

    @abc.abstractmethod
    def lines(self) -> None:
        """Pass blanks, comments and line ends."""

    # ---- words -------------------------------------------------------------------------------

    def word(
        self,
        context: str,
        *,
        assignable: bool = False,
        whole: bool = True,
        regex: bool = False,
    ) -> Word:
        """Read a word; placeholders outside of its quotes get this context.

        In an `assignable` place, `name=…` is an assignment. A list may stand where `whole` is true.
        `regex` is what follows `=~`: parentheses and bars belong to it.
        """
        start, first_spot = self.i, len(self.result.spots)
        saved = self.out, self.literal, self.lead
        self.out, self.literal = [], True
        assigned: str | None = None
        parentheses = 0
        while self.i < self.end:
            plain = _PLAIN.match(self.text, self.i, self.end)
            if plain:
                self.skip(plain.end() - self.i)
                continue
            character = self.text[self.i]
            if character in "<«" and self._take_outside_quotes(context):
                continue
            if regex and (character in "|()" or (character in "<>" and parentheses)):
                parentheses += (character == "(") - (character == ")")
                self.skip(1)
            elif character in "<>" and self.text.startswith("(", self.i + 1):
                self._process_substitution()
            elif character == "(" and self._opens_array(assigned):
                self._array(assigned or "")
            elif character == "(" and self.i > start and self.text[self.i - 1] in "?*+@!":
                self._extended_pattern(context)
            elif character in METACHARACTERS and not (regex and parentheses > 0):
                break
            elif character == "=" and assigned is None and self._assigns(start):
                name = NAME.match(self.text, start)
                assigned = name[0] if name else None
                context = "assign" if assignable else context
                whole = False
                self.skip(1)
            elif character == "[" and self._subscript_begins(start):
                name = NAME.match(self.text, start)
                self.subscript(name[0] if name else "")
            else:
                self._quoted_part(character)
        spots = self.result.spots[first_spot:]
        text = "".join(self.out)
        literal, lead = self.literal, text if self.literal else self.lead
        self.out, self.literal, self.lead = saved
        if self.i == start:
            raise Refusal(start, f"`{self.text[start : start + 1]}` is not understood here")
        self._mark(spots, start, whole, context == "command")
        return Word(start, self.i, self.depth, text, literal, lead, assigned)

    def _mark(self, spots: list[Spot], start: int, whole: bool, command: bool) -> None:
        for spot in spots:
            if spot.depth == self.depth:
                spot.command_word = spot.command_word or command
                at = spot.placeholder.start, spot.placeholder.end
                alone = whole and spot.context == "bare" and at == (start, self.i)
                spot.whole = spot.whole or alone

    def _take_outside_quotes(self, context: str) -> bool:
        if self.text[self.i] == "<" and self._angles():
            return False
        found = self.placeholder()
        if found is None:
            if self.text[self.i] == "<":
                return False
            self.skip(1)
            return True
        self.take(found, context, self._refusal_outside_quotes(found))
        return True

    def _quoted_part(self, character: str) -> None:
        if character == "\\":
            self.backslash()
        elif character == "'":
            self.single()
        elif character == '"':
            self.double()
        elif character == "$":
            self.dollar(quoted=False)
        elif character == "`":
            self.backquote()
        else:
            self.skip(1)

    def _process_substitution(self) -> None:
        start = self.i
        self.i += 2
        self.substitution(start)
        self.emit(self.text[start : self.i], literal=False)

    def _assigns(self, start: int) -> bool:
        return bool(_ASSIGNED.fullmatch(self.text, start, self.i))

    def _subscript_begins(self, start: int) -> bool:
        """Tell whether `name[` begins the subscript of an assignment, `name[…]=`."""
        if self.shell != "bash" or not NAME.fullmatch(self.text, start, self.i):
            return False
        depth, at = 0, self.i
        while at < self.end and self.text[at] not in "\n":
            inner = self.candidates.get(at)
            if inner is not None:
                at = inner.end
                continue
            depth += (self.text[at] == "[") - (self.text[at] == "]")
            at += 1
            if depth == 0:
                return self.text[at : at + 1] == "=" or self.text[at : at + 2] == "+="
        return False

    def _opens_array(self, assigned: str | None) -> bool:
        return self.shell == "bash" and assigned is not None and self.text[self.i - 1] == "="

    def _array(self, name: str) -> None:
        start = self.i
        self.i += 1
        saved = self.out, self.literal
        self.out = []
        while True:
            self.lines()
            if self.i >= self.end:
                raise Refusal(start, "this array is never closed by `)`")
            if self.text[self.i] == ")":
                break
            if self.text[self.i] == "[":
                self.subscript(name)
                if self.text.startswith(("=", "+="), self.i):
                    self.i += 1 + self.text.startswith("+", self.i)
                    if self.text[self.i : self.i + 1] in tuple(" \t\n)"):
                        continue
                    self.word("bare", whole=False)
                    continue
                raise Refusal(self.i, "`=` is missing behind this subscript")
            self.word("bare")
        self.i += 1
        self.out, self.literal = saved
        self.emit(self.text[start : self.i], literal=False)

    def _extended_pattern(self, context: str) -> None:
        """Read the alternatives of `@(a|b)`."""
        start = self.i
        depth = 0
        while self.i < self.end:
            character = self.text[self.i]
            found = self.candidate()
            if found is not None:
                self.take(found, context)
                continue
            depth += (character == "(") - (character == ")")
            if character in " \t|()":
                self.skip(1)
            elif character == "\n":
                break
            else:
                self._quoted_part(character)
            if depth == 0:
                return
        raise Refusal(start, "this pattern is never closed by `)`")
