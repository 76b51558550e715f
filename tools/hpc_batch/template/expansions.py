"""What a dollar begins: expansions, arithmetic, and the words inside of ${…}.

`$((` is arithmetic where it ends with `))`, else a command in a subshell: it is tried as the first
and read again as the second. In arithmetic `<<b>>` behind an operand could be two shifts.
"""

from __future__ import annotations

import abc
import re

from hpc_batch.template.placeholders import Placeholder
from hpc_batch.template.reader import Reader, Refusal
from hpc_batch.template.shape import Use

MAX_RETRIES = 400
"""How often `((` may turn out not to be arithmetic."""

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SPECIAL = "0123456789@*#?$!-"
_PARAMETER_WORD = re.compile(r"[^\\\"'$`<«}\n]+")
_OPERAND_BEFORE = re.compile(r"[A-Za-z0-9_)\]}'\"]")
_NUMBER = re.compile(r"[0-9][A-Za-z0-9_#@]*")
_SIMPLE_QUOTED = re.compile(r"'[^'\"$`\\{}<«\n]*'")
_SPLIT = re.compile(r"\$(?:\\\n|\(\\\n\()")
_ARITHMETIC_WAY_OUT = "assign the value to a variable first, and use that"


class NotArithmetic(Exception):
    """What follows `((` does not end with `))`."""


class Expansions(Reader):
    """Expansions and arithmetic."""

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

    @abc.abstractmethod
    def substitution(self, start: int) -> None:
        """Read the commands of $(…): the cursor is behind the opening parenthesis."""

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
