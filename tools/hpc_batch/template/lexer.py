"""Reads a shell script and says in which quoting context each placeholder stands.

A hand-written recursive descent over commands, words, redirections, here-documents, `case` and
`[[ ]]`. It knows as much of the grammar as is needed to tell quotes from text and a command's name
from its arguments; whether every `if` has its `fi` is `bash -n`'s business. A parser library is not
used: those that were measured misread legal here-documents without reporting an error, and here
nothing may be guessed.
"""

from __future__ import annotations

import re
from typing import Container

from hpc_batch.template.documents import Documents
from hpc_batch.template.reader import Refusal
from hpc_batch.template.shape import Command, Lexed, Redirect, Word
from hpc_batch.template.words import METACHARACTERS

_BREAK = r"(?=[ \t\n;&|<>()]|\Z)"
_RESERVED = re.compile(
    r"(?:if|then|elif|else|fi|while|until|do|done|\{|\}|!|time|coproc|case|esac|for|select|function"
    r"|\[\[)" + _BREAK
)
_OPENERS = ("if", "while", "until", "for", "select", "{", "case")
_CLOSERS = ("fi", "done", "}", "esac", "case")
"""A case is read as a whole, so that its word both opens and closes it."""
_CASE_ENDS = (";;", ";&", ";;&")
_OPERATOR = re.compile(r";;&|;;|;&|;|&&|&|\|\||\|&|\|")
_REDIRECT = re.compile(r"&>>|&>|<<<|<<-|<<|<&|<>|<|>>|>&|>\||>")


def lex(text: str, shell: str, names: Container[str] | None) -> Lexed:
    """Read a script for `bash` or `sh`. Raises Refusal where it cannot be understood."""
    lexer = Lexer(text, shell, names)
    try:
        lexer.commands("")
    except RecursionError:
        raise Refusal(lexer.i, "quotes and expansions are nested too deeply") from None
    lexer.result.spots.sort(key=lambda spot: spot.placeholder.start)
    return lexer.result


class Lexer(Documents):
    """Commands and redirections."""

    def substitution(self, start: int) -> None:
        """Read the commands of `$(…)`, `<(…)`: the cursor is behind the opening parenthesis."""
        saved = self.pending, self.held, self.out, self.literal, self.document
        self.held = self.held or bool(self.pending)
        self.pending, self.out, self.document = [], [], None
        self.depth += 1
        self.enter()
        self.commands(")", start)
        if self.pending:
            raise Refusal(self.pending[0].at, "this here-document's body lies outside of its $(…)")
        self.depth -= 1
        self.nesting -= 1
        self.pending, self.held, self.out, self.literal, self.document = saved

    def finish(self, command: Command) -> Command:
        """Record a simple command, if it is one, and begin the next."""
        if command.begun:
            self.result.commands.append(command)
        return Command(self.i, None)

    def commands(self, close: str, opened: int = 0) -> None:
        """Read commands up to `close`: the text's end, `)`, or the `;;` or `esac` of a case."""
        command = Command(self.i, None)
        pipeline = self.i
        openers: list[int] = []
        while True:
            self.blanks()
            if not (command.begun or command.compound):
                command.start = self.i
                pipeline = self.i if command.piped_from is None else pipeline
            if self.i >= self.end:
                self._check_end(close, opened)
                self.finish(command)
                return
            character = self.text[self.i]
            if character == "\n":
                self.newline()
                if command.begun or command.compound:
                    command = self.finish(command)
            elif character == "#":
                self.comment()
            elif character == ")":
                if close != ")":
                    raise Refusal(self.i, "this `)` closes nothing")
                self.i += 1
                self.finish(command)
                return
            elif character in ";&|" and not self.text.startswith("&>", self.i):
                operator = self._operator(close)
                command = self.finish(command)
                if operator in _CASE_ENDS:
                    return
                command.piped_from = pipeline if operator in ("|", "|&") else None
            elif character == "(":
                self._parenthesis(command)
            elif self._at_redirect():
                self._redirect(command)
            else:
                word = self._reserved_word(command)
                if word == "esac" and close == ";;":
                    self.finish(command)
                    return
                if word in _OPENERS:
                    openers.append(pipeline)
                if word is None:
                    self._simple_word(command)
                else:
                    self._reserved(word, command)
                if word in _CLOSERS and openers:
                    pipeline = openers.pop()

    def _check_end(self, close: str, opened: int) -> None:
        if close:
            what = "this parenthesis" if close == ")" else "this case"
            raise Refusal(opened, f"{what} is never closed")
        if self.pending:
            document = self.pending[0]
            text = f"this here-document is never closed by a line {document.delimiter!r}"
            raise Refusal(document.at, text)

    def _operator(self, close: str) -> str:
        operator = _OPERATOR.match(self.text, self.i)
        word = operator[0] if operator else self.text[self.i]
        if word in _CASE_ENDS and close != ";;":
            raise Refusal(self.i, f"`{word}` outside of a case")
        self.i += len(word)
        return word

    def _reserved_word(self, command: Command) -> str | None:
        if command.words or command.assigns:
            return None
        found = _RESERVED.match(self.text, self.i, self.end)
        return found[0] if found else None

    def _at_redirect(self) -> bool:
        character = self.text[self.i]
        if character == "<":
            return self._angles() and not self.text.startswith("<(", self.i)
        return character == "&" or (character == ">" and self.text[self.i : self.i + 2] != ">(")

    def _simple_word(self, command: Command) -> None:
        first = not command.words
        word = self.word("command" if first else "bare", assignable=first)
        followed = self.i < self.end and self.text[self.i] in "<>"
        if word.literal and word.text.isdigit() and followed and self._at_redirect():
            return
        if first and word.assigned is not None:
            command.assigns.append(word)
        else:
            command.words.append(word)

    def _parenthesis(self, command: Command) -> None:
        start = self.i
        if command.words or command.assigns:
            self.i += 1
            self.blanks()
            if len(command.words) == 1 and self.text.startswith(")", self.i):
                self.i += 1
                self._name(command.words[0].start)
                command.words.clear()
                return
            raise Refusal(start, "this parenthesis is not understood; quote it, if it is text")
        if self.text.startswith("((", start):
            self.i += 2
            if self.try_arithmetic():
                if self.shell != "bash":
                    raise Refusal(start, "`((…))` is not for sh; write ( (…) ) for subshells")
                command.compound = True
                return
            self.i = start
        self.i += 1
        self.enter()
        self.commands(")", start)
        self.nesting -= 1
        command.compound = True

    def _name(self, start: int) -> None:
        """Refuse placeholders in the name of a function or loop variable."""
        for spot in self.result.spots:
            if start <= spot.placeholder.start < self.i:
                spot.context = "name"
                spot.refusal = "a value cannot be the name of a function or a variable"

    def _reserved(self, found: str, command: Command) -> None:
        start = self.i
        if found == "case":
            self._case()
            command.compound = True
        elif found in ("for", "select"):
            self._for(command)
        elif found == "[[" and self.shell == "bash":
            self._condition(command)
        elif found == "function":
            self.i += len(found)
            self.blanks()
            name = self.i
            self.word("name")
            self._name(name)
            self.blanks()
            if re.compile(r"\([ \t]*\)").match(self.text, self.i):
                self.i = self.text.index(")", self.i) + 1
        elif found == "[[":
            raise Refusal(start, "sh has no [[ ]]; write [ ] or begin with #!/bin/bash")
        else:
            self.i += len(found)
            command.compound = found in _CLOSERS
            if found == "time":
                self.blanks()
                self.i += 2 if re.compile("-p" + _BREAK).match(self.text, self.i) else 0

    def _for(self, command: Command) -> None:
        command.words.append(self.word("bare"))
        self.blanks()
        if self.text.startswith("((", self.i):
            start = self.i
            self.i += 2
            if not self.try_arithmetic():
                raise Refusal(start, "this `for ((` is never closed by `))`")
            command.words.clear()
            return
        name = self.i
        command.words.append(self.word("name"))
        self._name(name)
        self.lines()
        if re.compile("in" + _BREAK).match(self.text, self.i):
            command.words.append(self.word("bare"))
        elif re.compile("do" + _BREAK).match(self.text, self.i):
            command.words.clear()

    def _case(self) -> None:
        start = self.i
        self.i += 4
        self.blanks()
        self.word("bare", whole=False)
        self.lines()
        if not re.compile("in" + _BREAK).match(self.text, self.i):
            raise Refusal(start, "this case has no `in`")
        self.i += 2
        while True:
            self.lines()
            if re.compile("esac" + _BREAK).match(self.text, self.i):
                self.i += 4
                return
            self.i += self.text.startswith("(", self.i)
            while True:
                self.blanks()
                if self.i >= self.end:
                    raise Refusal(start, "this case is never closed by esac")
                self.word("pattern", whole=False)
                self.blanks()
                if self.text.startswith("|", self.i):
                    self.i += 1
                elif self.text.startswith(")", self.i):
                    self.i += 1
                    break
                else:
                    raise Refusal(self.i, "this pattern of a case is not closed by `)`")
            self.commands(";;", start)

    def _condition(self, command: Command) -> None:
        """Read `[[ … ]]`; its words become those of a command named `[[`."""
        start = self.i
        command.words.append(self.word("cond"))
        while True:
            self.lines()
            if self.i >= self.end:
                raise Refusal(start, "this [[ is never closed by ]]")
            character = self.text[self.i]
            if re.compile(r"\]\]" + _BREAK).match(self.text, self.i):
                command.words.append(self.word("cond"))
                command.compound = True
                return
            before = command.words[-1].text
            if before == "=~":
                command.words.append(self._regex())
            elif character in "()&|>" or (character == "<" and self.placeholder() is None):
                self.i += 1
            else:
                pattern = before in ("==", "=", "!=")
                command.words.append(self.word("pattern" if pattern else "cond", whole=False))

    def _regex(self) -> Word:
        forbid = self.forbid
        self.forbid = "it stands in a regular expression; compare with ==, or use grep -F"
        word = self.word("cond", regex=True)
        self.forbid = forbid
        return word

    def _redirect(self, command: Command) -> None:
        start = self.i
        operator = _REDIRECT.match(self.text, self.i)
        if operator is None:
            raise Refusal(start, "this redirection is not understood")
        self.i = operator.end()
        self.blanks()
        if operator[0] in ("<<", "<<-"):
            document = self.delimiter(start, operator[0] == "<<-")
            command.documents.append(document)
            self.pending.append(document)
            self.result.documents.append(document)
            return
        if self.i >= self.end or (
            self.text[self.i] in METACHARACTERS - {"<", ">"} and self.text[self.i] != "("
        ):
            raise Refusal(start, f"nothing stands behind the redirection `{operator[0]}`")
        context = "herestring" if operator[0] == "<<<" else "redirect"
        command.redirects.append(Redirect(operator[0], self.word(context, whole=False)))
