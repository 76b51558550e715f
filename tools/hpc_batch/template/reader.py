"""A cursor in a shell script: quotes, and the placeholders in them.

Each method stands on the opening character of its construct, reads to its end, and records every
placeholder on the way with its context. `expansions` adds what a dollar begins, `words` the words,
`documents` the here-documents, and `lexer` the commands; they are one class, in parts. What is not
understood is refused: `Refusal` ends the reading, a refusal at a `Spot` concerns one placeholder.

Where shells disagree about a construct, it is accepted only in a form that all read alike.
"""

from __future__ import annotations

import abc
import re
from bisect import bisect_right
from typing import Container

from hpc_batch.template.placeholders import Placeholder, find
from hpc_batch.template.shape import HereDocument, Lexed, Spot

MAX_DEPTH = 60
"""How deep quotes and substitutions may be nested."""

_DOUBLE = re.compile(r'[^\\"$`<«\n]+')


class Refusal(Exception):
    """The text is not understood from this offset on."""

    def __init__(self, at: int, text: str) -> None:
        super().__init__(text)
        self.at = at
        self.text = text


class Reader(abc.ABC):
    """A cursor in a script's text; `names` are the known ones, None where any may be known."""

    def __init__(self, text: str, shell: str, names: Container[str] | None) -> None:
        self.text = text
        self.shell = shell
        self.names = names
        self.i = 0
        self.end = len(text)
        self.candidates = {p.start: p for p in find(text)}
        self.result = Lexed()
        self.depth = 0
        self.nesting = 0
        self.retries = 0
        self.out: list[str] = []
        self.literal = True
        self.lead = ""
        self.forbid: str | None = None
        self.document: HereDocument | None = None
        self.pending: list[HereDocument] = []
        self.held = False
        self._newlines = [m.start() for m in re.finditer("\n", text)]

    def line(self, at: int) -> int:
        """Return the 1-based line of an offset."""
        return bisect_right(self._newlines, at - 1) + 1

    # ---- placeholders ------------------------------------------------------------------------

    def known(self, placeholder: Placeholder) -> bool:
        """Tell whether a candidate's name is one."""
        return self.names is None or placeholder.optional or placeholder.name in self.names

    def candidate(self) -> Placeholder | None:
        """Return what looks like a placeholder at the cursor."""
        found = self.candidates.get(self.i)
        return found if found is not None and found.end <= self.end else None

    def take(self, placeholder: Placeholder, context: str, refusal: str | None = None) -> Spot:
        """Record a placeholder and go behind it."""
        spot = Spot(
            placeholder,
            context,
            self.depth,
            refusal=self.forbid or refusal,
            unknown=not self.known(placeholder),
            document=self.document if self.document and self.document.quoted else None,
        )
        self.result.spots.append(spot)
        self.emit(self.text[placeholder.start : placeholder.end], literal=False)
        self.i = placeholder.end
        return spot

    def emit(self, text: str, *, literal: bool = True) -> None:
        """Add to the text of the word or body that is being read."""
        if self.literal and not literal:
            self.literal = False
            self.lead = "".join(self.out)
        self.out.append(text)

    def skip(self, length: int) -> None:
        """Go on; what was passed is literal text."""
        self.emit(self.text[self.i : self.i + length])
        self.i += length

    def line_break(self) -> None:
        """Refuse a line break inside a construct where a here-document's body would begin."""
        if self.pending or self.held:
            text = "a line break inside quotes or an expansion on the line of a here-document; "
            raise Refusal(self.i, text + "close it before the line ends")

    def enter(self) -> None:
        """Go one level deeper."""
        self.nesting += 1
        if self.nesting > MAX_DEPTH:
            raise Refusal(
                self.i, f"quotes and expansions are nested deeper than {MAX_DEPTH} levels"
            )

    # ---- quotes ------------------------------------------------------------------------------

    @abc.abstractmethod
    def dollar(self, *, quoted: bool, body: bool = False) -> None:
        """Read what a dollar begins; `quoted` in double quotes and bodies of here-documents."""

    def backslash(self, special: str | None = None) -> None:
        """Read a backslash and what it escapes: anything, or only the characters of `special`."""
        self.i += 1
        following = self.text[self.i : self.i + 1]
        placeholder = self.candidate()
        if placeholder is not None:
            self.emit("\\")
            text = (
                'a backslash stands directly before it; write "\\\\" for a backslash, or remove it'
            )
            if self.known(placeholder) or special is not None:
                self.take(placeholder, "escaped", text)
            else:
                self.skip(1)
        elif following == "\n":
            self.i += 1
        elif special is None or (following and following in special):
            self.skip(1)
        else:
            self.emit("\\")

    def single(self) -> None:
        """Read '…': the cursor is on the opening quote."""
        start = self.i
        self.i += 1
        while self.i < self.end:
            placeholder = self.candidate()
            if placeholder is not None:
                self.take(placeholder, "sq")
                continue
            character = self.text[self.i]
            if character == "'":
                self.i += 1
                return
            if character == "\n":
                self.line_break()
            self.skip(1)
        raise Refusal(start, "this single quote (') is never closed")

    def ansi(self) -> None:
        """Read $'…': the cursor is on the dollar."""
        start = self.i
        if self.shell != "bash":
            raise Refusal(start, "sh has no $'…'; begin the template with #!/bin/bash")
        self.i += 2
        while self.i < self.end:
            placeholder = self.candidate()
            character = self.text[self.i]
            if placeholder is not None:
                self.take(placeholder, "ansi")
            elif character == "'":
                self.i += 1
                return
            elif character == "\\":
                self.i += 1
                inner = self.candidate()
                if inner is not None:
                    self.take(inner, "escaped", "a backslash stands directly before it; remove it")
                else:
                    self.emit("\\", literal=False)
                    self.skip(1)
            else:
                if character == "\n":
                    self.line_break()
                self.skip(1)
        raise Refusal(start, "this $'…' is never closed")

    def double(self, context: str = "dq") -> None:
        """Read "…": the cursor is on the opening quote."""
        start = self.i
        self.enter()
        self.i += 1
        while self.i < self.end:
            plain = _DOUBLE.match(self.text, self.i, self.end)
            if plain:
                self.skip(plain.end() - self.i)
                continue
            placeholder = self.candidate()
            character = self.text[self.i]
            if placeholder is not None:
                self.take(placeholder, context)
            elif character == '"':
                self.i += 1
                self.nesting -= 1
                return
            elif character == "\\":
                self.backslash('$`"\\')
            elif character == "$":
                self.dollar(quoted=True)
            elif character == "`":
                self.backquote()
            else:
                if character == "\n":
                    self.line_break()
                self.skip(1)
        raise Refusal(start, 'this double quote (") is never closed')

    def backquote(self) -> None:
        """Read `…`, in which no placeholder is accepted."""
        start = self.i
        saved = self.forbid, self.out, self.literal
        self.forbid, self.out = "it stands inside `…`; write $(…) instead", []
        self.i += 1
        while self.i < self.end:
            placeholder = self.candidate()
            character = self.text[self.i]
            if placeholder is not None and self.known(placeholder):
                self.take(placeholder, "backquote")
            elif character == "`":
                self.i += 1
                self.forbid, self.out, self.literal = saved
                self.emit(self.text[start : self.i], literal=False)
                return
            else:
                if character == "\n":
                    self.line_break()
                self.i += 2 if character == "\\" else 1
        raise Refusal(start, "this backquote (`) is never closed")
