"""The quoting of a shell: quotes, expansions, arithmetic, and the placeholders in them.

A `Reader` is a cursor in a text. Each method stands on the opening character of its construct,
reads to its end, and records every placeholder on the way with its context. `lexer.Lexer` adds
commands and here-documents. What is not understood is refused: `Refusal` ends the reading, a
refusal at a `Spot` concerns one placeholder only.

Where shells disagree about a construct (single quotes inside "${v:-…}", `$'…'` in sh, text that
could be arithmetic or two subshells), it is accepted only in a form that all read alike.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import Container

from hpc_batch.template.placeholders import Placeholder, find
from hpc_batch.template.shape import HereDocument, Lexed, Spot, Use

MAX_DEPTH = 60
"""How deep quotes and substitutions may be nested."""
MAX_RETRIES = 400
"""How often `((` may turn out not to be arithmetic."""

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SPECIAL = "0123456789@*#?$!-"
_DOUBLE = re.compile(r'[^\\"$`<«\n]+')
_PARAMETER_WORD = re.compile(r"[^\\\"'$`<«}\n]+")
_OPERAND_BEFORE = re.compile(r"[A-Za-z0-9_)\]}'\"]")
_NUMBER = re.compile(r"[0-9][A-Za-z0-9_#@]*")
_SIMPLE_QUOTED = re.compile(r"'[^'\"$`\\{}<«\n]*'")
_SPLIT = re.compile(r"\$(?:\\\n|\(\\\n\()")
_ARITHMETIC_WAY_OUT = "assign the value to a variable first, and use that"


class Refusal(Exception):
    """The text is not understood from this offset on."""

    def __init__(self, at: int, text: str) -> None:
        super().__init__(text)
        self.at = at
        self.text = text


class NotArithmetic(Exception):
    """What follows `((` does not end with `))`."""


class Reader:
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

    def skip(self, length: int, emitted: str | None = None) -> None:
        """Go on; what was passed is literal text, or `emitted` instead of it."""
        self.emit(self.text[self.i : self.i + length] if emitted is None else emitted)
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

    def single(self, context: str = "sq", stop: str = "'") -> None:
        """Read '…': the cursor is on the opening quote."""
        start = self.i
        self.i += 1
        while self.i < self.end:
            placeholder = self.candidate()
            if placeholder is not None:
                self.take(placeholder, context)
                continue
            character = self.text[self.i]
            if character == stop:
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

    # ---- expansions --------------------------------------------------------------------------

    def dollar(self, *, quoted: bool, body: bool = False) -> None:
        """Read what a dollar begins; `quoted` in double quotes and bodies of here-documents."""
        start = self.i
        following = self.text[self.i + 1 : self.i + 2]
        if _SPLIT.match(self.text, self.i):
            raise Refusal(start, "a line is continued inside of an expansion's beginning; join it")
        if following == "'" and not quoted:
            self.ansi()
            return
        if following == '"' and not quoted:
            self.i += 1
            if self.shell != "bash":
                raise Refusal(start, 'sh has no $"…"; remove the dollar')
            self.double("locale")
            return
        saved, self.out = (self.out, self.literal), []
        self.enter()
        if self.text.startswith("((", self.i + 1):
            self.arithmetic_or_commands()
        elif following == "(":
            self.i += 2
            self.substitution(start)
        elif following == "{":
            self.parameter(quoted=quoted, body=body)
        elif following == "[":
            if self.shell != "bash":
                raise Refusal(start, "`$[` is not for sh; write $((…)), or \\$[ for text")
            self.i += 2
            self._arithmetic_to("]", start)
        else:
            self._simple_expansion(start)
        self.nesting -= 1
        self.out, self.literal = saved
        self.emit(self.text[start : self.i], literal=self.text[start : self.i] == "$")

    def _simple_expansion(self, start: int) -> None:
        self.i += 1
        name = NAME.match(self.text, self.i, self.end)
        placeholder = self.candidate()
        if name:
            self.use(name[0], start, arithmetic=False)
            self.i = name.end()
        elif self.i < self.end and self.text[self.i] in _SPECIAL:
            self.i += 1
        elif placeholder is not None:
            text = 'a "$" stands directly before it; write \\$ for a dollar, or remove it'
            self.take(placeholder, "dollar", text)

    def use(self, name: str, at: int, *, arithmetic: bool, array: str | None = None) -> None:
        """Record that a variable is read."""
        self.result.uses.append(Use(name, at, arithmetic, array))

    def substitution(self, start: int) -> None:
        """Read the commands of $(…): the cursor is behind the opening parenthesis."""
        raise NotImplementedError

    def arithmetic_or_commands(self) -> None:
        """Read $((…)), or $( (…) …) where it does not end with `))`."""
        start = self.i
        self.i += 3
        if not self.try_arithmetic():
            self.i = start + 2
            self.substitution(start)

    def try_arithmetic(self) -> bool:
        """Read arithmetic up to `))`; where it is none, undo what was recorded and say so."""
        result = self.result
        lengths = len(result.spots), len(result.uses), len(result.commands), len(result.documents)
        state = self.i, self.out, self.literal, self.depth, self.nesting, self.forbid
        self.out = []
        try:
            self.arithmetic("))")
        except (NotArithmetic, Refusal):
            self.retries += 1
            if self.retries > MAX_RETRIES:
                raise Refusal(self.i, "too many nested parentheses") from None
            for record, length in zip(
                (result.spots, result.uses, result.commands, result.documents), lengths
            ):
                del record[length:]  # type: ignore[attr-defined]
            self.i, self.out, self.literal, self.depth, self.nesting, self.forbid = state
            return False
        self.out = state[1]
        return True

    def _arithmetic_to(self, close: str, start: int, array: str | None = None) -> None:
        try:
            self.arithmetic(close, array)
        except NotArithmetic:
            raise Refusal(start, f"this arithmetic or subscript is not closed by {close}") from None

    def arithmetic(self, close: str, array: str | None = None) -> None:
        """Read arithmetic and its close: `))`, `]` or `}`."""
        depth = brackets = 0
        while self.i < self.end:
            character = self.text[self.i]
            placeholder = self.candidate()
            word = NAME.match(self.text, self.i, self.end)
            number = _NUMBER.match(self.text, self.i, self.end)
            if not depth and not brackets and self.text.startswith(close, self.i):
                self.i += len(close)
                return
            if placeholder is not None and self._arithmetic_placeholder(placeholder):
                continue
            if number:
                self.i = number.end()
            elif word:
                self.use(word[0], self.i, arithmetic=True, array=array)
                self.i = word.end()
            elif character in "\"'":
                self._arithmetic_quotes(character)
            elif character == "$":
                self._arithmetic_dollar(array)
            elif character == "`":
                self.backquote()
            else:
                depth += (character == "(") - (character == ")")
                brackets += (character == "[") - (character == "]")
                if depth < 0 or brackets < 0:
                    raise NotArithmetic
                if character == "\n":
                    self.line_break()
                self.i += 2 if character == "\\" else 1
        raise NotArithmetic

    def _arithmetic_placeholder(self, placeholder: Placeholder) -> bool:
        """Take a placeholder in arithmetic; say no where it is two shifts."""
        before = self.text[max(0, self.i - 200) : self.i].rstrip(" \t\n")[-1:]
        after = self.text[placeholder.end : placeholder.end + 1]
        if _OPERAND_BEFORE.match(before) and not placeholder.french:
            if self.names is None or not self.known(placeholder):
                return False
            text = f"it could also be two shifts (<< and >>); {_ARITHMETIC_WAY_OUT}"
            self.take(placeholder, "arith", text)
        elif _OPERAND_BEFORE.match(before) or re.match(r"[A-Za-z0-9_\[({$\"'«]|<<", after):
            text = f"it is glued to other text in arithmetic; {_ARITHMETIC_WAY_OUT}"
            self.take(placeholder, "arith", text)
        else:
            self.take(placeholder, "arith")
        return True

    def _arithmetic_quotes(self, quote: str) -> None:
        forbid = self.forbid
        self.forbid = f"it stands in quotes in arithmetic; {_ARITHMETIC_WAY_OUT}"
        if quote == "'":
            self.single()
        else:
            self.double()
        self.forbid = forbid

    def _arithmetic_dollar(self, array: str | None) -> None:
        uses = len(self.result.uses)
        start = self.i
        self.dollar(quoted=True)
        for index, use in enumerate(self.result.uses[uses:], uses):
            if use.at == start:
                self.result.uses[index] = Use(use.name, use.at, True, array)

    def subscript(self, array: str) -> None:
        """Read `[…]` behind an array's name: the cursor is on the bracket."""
        start = self.i
        self.i += 1
        placeholder = self.candidate()
        forbid, saved = self.forbid, (self.out, self.literal)
        self.out = []
        if (
            placeholder is not None
            and self.known(placeholder)
            and self.text.startswith("]", placeholder.end)
        ):
            self.take(placeholder, "subscript")
            self.i += 1
        else:
            text = "it is a part of a subscript; " + _ARITHMETIC_WAY_OUT
            self.forbid = self.forbid or text
            self._arithmetic_to("]", start, array)
            self.forbid = forbid
        self.out, self.literal = saved
        self.emit(self.text[start : self.i], literal=False)

    def parameter(self, *, quoted: bool, body: bool) -> None:
        """Read ${…}: the cursor is on the dollar."""
        start = self.i
        self.i += 2
        prefix = self.text[self.i : self.i + 1]
        if prefix in ("#", "!") and self.text[self.i + 1 : self.i + 2] not in ("}", ":", "%", ""):
            self.i += 1
        placeholder = self.candidate()
        name = NAME.match(self.text, self.i, self.end)
        if name:
            self.i = name.end()
            self.use(name[0], start, arithmetic=prefix == "!")
        elif placeholder is not None:
            self.take(placeholder, "name", "a value cannot name a variable; use a case statement")
        elif self.i < self.end and self.text[self.i] in _SPECIAL:
            self.i += 1
            while self.i < self.end and self.text[self.i].isdigit():
                self.i += 1
        if self.i < self.end and self.text[self.i] == "[":
            self.subscript(name[0] if name else "")
        operator = self.text[self.i : self.i + 1]
        if name and self.text.startswith("@P", self.i):
            self.use(name[0], start, arithmetic=True)
        if operator == "}":
            self.i += 1
        elif operator == ":" and self.text[self.i + 1 : self.i + 2] not in tuple("-=?+"):
            self.i += 1
            self._substring(start)
        else:
            context = "param_pattern" if operator in tuple("%#/^,@") else "param"
            self.i += 2 if operator == ":" else 1
            self._parameter_word(context, start, quoted, body)

    def _substring(self, start: int) -> None:
        spots = len(self.result.spots)
        self._arithmetic_to("}", start)
        for spot in self.result.spots[spots:]:
            if spot.context == "arith":
                spot.context = "param_arith"

    def _parameter_word(self, context: str, start: int, quoted: bool, body: bool) -> None:
        """Read the word inside ${…} up to its brace."""
        while self.i < self.end:
            plain = _PARAMETER_WORD.match(self.text, self.i, self.end)
            if plain:
                self.i = plain.end()
                continue
            character = self.text[self.i]
            placeholder = self.candidate()
            if placeholder is not None:
                self.take(placeholder, f"{context}_dq" if quoted else context)
            elif character == "}":
                self.i += 1
                return
            elif character == "\\":
                self.backslash()
            elif character == "'":
                self._single_in_parameter(quoted)
            elif character == '"':
                self._double_in_parameter(quoted, body)
            elif character == "$":
                self.dollar(quoted=quoted, body=body)
            elif character == "`":
                self.backquote()
            else:
                if character == "\n":
                    self.line_break()
                self.i += 1
        raise Refusal(start, "this ${ is never closed by }")

    def _single_in_parameter(self, quoted: bool) -> None:
        if not quoted:
            self.single()
            return
        plain = _SIMPLE_QUOTED.match(self.text, self.i, self.end)
        if not plain:
            text = 'a single quote inside "${…}", which shells read differently; '
            raise Refusal(self.i, text + "put the text into a variable first")
        self.i = plain.end()

    def _double_in_parameter(self, quoted: bool, body: bool) -> None:
        forbid = self.forbid
        if body or (quoted and self.shell != "bash"):
            text = 'it stands in quotes inside "${…}", which shells read differently; '
            self.forbid = self.forbid or text + "remove the inner quotes"
        self.double()
        self.forbid = forbid
