"""Reads a shell script and says in which quoting context each placeholder stands.

A hand-written recursive descent over commands, words, redirections, here-documents, `case` and
`[[ ]]`, on top of `reader`. It knows as much of the grammar as is needed to tell quotes from text
and a command's name from its arguments; whether every `if` has its `fi` is `bash -n`'s business. A
parser library is not used: those that were measured misread legal here-documents without reporting
an error, and here nothing may be guessed.

`<<name>>` at a place where a here-document may begin is a placeholder when the name is known, shell
text when it is not and a later line closes it, and refused when it could be both.
"""

from __future__ import annotations

import re
from typing import Container

from hpc_batch.template.placeholders import Placeholder
from hpc_batch.template.reader import NAME, NotArithmetic, Reader, Refusal
from hpc_batch.template.shape import Command, HereDocument, Lexed, Redirect, Spot, Word

_BREAK = r"(?=[ \t\n;&|<>()]|\Z)"
_RESERVED = re.compile(
    r"(?:if|then|elif|else|fi|while|until|do|done|\{|\}|!|time|coproc|case|esac|for|select|function"
    r"|\[\[)" + _BREAK
)
_OPENERS = {"if", "while", "until", "for", "select", "{", "case"}
_CLOSERS = {"fi", "done", "}", "esac"}
_OPERATOR = re.compile(r";;&|;;|;&|;|&&|&|\|\||\|&|\|")
_REDIRECT = re.compile(r"&>>|&>|<<<|<<-|<<|<&|<>|<|>>|>&|>\||>")
_PLAIN = re.compile(r"[^ \t\n;&|<>()\\'\"$`«\[=#?*+@!]+")
_METACHARACTERS = frozenset(" \t\n;&|<>()")
_ASSIGNED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:\[.*\])?\+?", re.DOTALL)
_DIRECTIVE = re.compile(r"#(?:SBATCH|PBS|BSUB|\$|PJM|OAR|MSUB|COBALT|FLUX:|@)[ \t]")
_LESS = re.compile("<+")


def lex(text: str, shell: str, names: Container[str] | None) -> Lexed:
    """Read a script for `bash` or `sh`. Raises Refusal where it cannot be understood."""
    lexer = Lexer(text, shell, names)
    try:
        lexer.commands("")
    except RecursionError:
        raise Refusal(lexer.i, "quotes and expansions are nested too deeply") from None
    lexer.result.spots.sort(key=lambda spot: spot.placeholder.start)
    return lexer.result


class Lexer(Reader):
    """Commands, words, redirections and here-documents."""

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

    # ---- blanks, comments, bodies ------------------------------------------------------------

    def blanks(self) -> None:
        """Pass blanks and continued lines."""
        while self.i < self.end:
            if self.text[self.i] in " \t":
                self.i += 1
            elif self.text.startswith("\\\n", self.i):
                self.i += 2
            else:
                return

    def lines(self) -> None:
        """Pass blanks, comments and line ends."""
        while True:
            self.blanks()
            if self.i < self.end and self.text[self.i] == "#":
                self.comment()
            elif self.i < self.end and self.text[self.i] == "\n":
                self.newline()
            else:
                return

    def comment(self) -> None:
        """Pass a comment; a batch system's directive is not one."""
        stop = self.text.find("\n", self.i, self.end)
        stop = self.end if stop < 0 else stop
        first = self.i == 0 or self.text[self.i - 1] == "\n"
        directive = first and _DIRECTIVE.match(self.text, self.i)
        saved, self.out = self.out, []
        while self.i < stop:
            found = self.candidate()
            if found is not None and found.end <= stop and (directive or self.known(found)):
                self.take(found, "directive" if directive else "comment")
            else:
                self.i += 1
        self.out = saved

    def newline(self) -> None:
        """Pass a line end and the bodies of the here-documents that were begun on the line."""
        if self.held:
            text = "a line break inside $(…) on the line of a here-document; close it before"
            raise Refusal(self.i, text)
        self.i += 1
        documents, self.pending = self.pending, []
        for document in documents:
            self._body(document)

    def _body(self, document: HereDocument) -> None:
        start = self.i
        previous = ""
        while True:
            if self.i >= self.end:
                text = f"this here-document is never closed by a line {document.delimiter!r}"
                raise Refusal(document.at, text)
            stop = self.text.find("\n", self.i, self.end)
            stop = self.end if stop < 0 else stop
            line = self.text[self.i : stop]
            if (line.lstrip("\t") if document.tabs else line) == document.delimiter:
                break
            previous = line
            self.i = min(stop + 1, self.end)
        if not document.quoted and (len(previous) - len(previous.rstrip("\\"))) % 2:
            text = "the here-document's last line ends with a backslash, which joins its delimiter"
            raise Refusal(self.i, text)
        after = min(stop + 1, self.end)
        document.start, document.end = start, self.i
        saved = self.end, self.out, self.literal, self.document, self.held
        self.i, self.end, self.out, self.document, self.held = start, self.i, [], document, False
        self._body_text(document)
        document.text = "".join(self.out)
        self.end, self.out, self.literal, self.document, self.held = saved
        self.i = after

    def _body_text(self, document: HereDocument) -> None:
        context = ("heredoc_q" if document.quoted else "heredoc") + "_tab" * document.tabs
        while self.i < self.end:
            found = self.candidate()
            character = self.text[self.i]
            if found is not None:
                self.take(found, context)
            elif document.quoted or character not in "\\$`":
                self.skip(1)
            elif character == "\\":
                self.backslash("$`\\")
            elif character == "$":
                self.document = None
                self.dollar(quoted=True, body=True)
                self.document = document
            else:
                self.backquote()

    # ---- commands ----------------------------------------------------------------------------

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

    def begin(self, piped_from: int | None = None) -> Command:
        """Begin a simple command."""
        return Command(self.i, piped_from)

    def finish(self, command: Command) -> None:
        """Record a simple command, if it is one."""
        if command.words or command.assigns or command.redirects or command.documents:
            self.result.commands.append(command)

    def commands(self, close: str, opened: int = 0) -> None:
        """Read commands up to `close`: the text's end, `)`, or the `;;` or `esac` of a case."""
        command = self.begin()
        pipeline = self.i
        openers: list[int] = []
        while True:
            self.blanks()
            if not (command.words or command.assigns or command.redirects or command.compound):
                command.start = self.i
                pipeline = self.i if command.piped_from is None else pipeline
            if self.i >= self.end:
                if close:
                    what = "this parenthesis" if close == ")" else "this case"
                    raise Refusal(opened, f"{what} is never closed")
                if self.pending:
                    document = self.pending[0]
                    text = f"this here-document is never closed by a line {document.delimiter!r}"
                    raise Refusal(document.at, text)
                self.finish(command)
                return
            character = self.text[self.i]
            if character == "\n":
                self.newline()
                if command.words or command.assigns or command.redirects or command.compound:
                    self.finish(command)
                    command = self.begin()
            elif character == "#":
                self.comment()
            elif character == ")":
                if close != ")":
                    raise Refusal(self.i, "this `)` closes nothing")
                self.i += 1
                self.finish(command)
                return
            elif character in ";&|" and not self.text.startswith("&>", self.i):
                operator = _OPERATOR.match(self.text, self.i)
                word = operator[0] if operator else character
                self.finish(command)
                self.i += len(word)
                if word in (";;", ";&", ";;&"):
                    if close == ";;":
                        return
                    raise Refusal(self.i - len(word), f"`{word}` outside of a case")
                command = self.begin(pipeline if word in ("|", "|&") else None)
            elif character == "(":
                self._parenthesis(command)
            elif self._at_redirect():
                self._redirect(command)
            else:
                reserved = not command.words and not command.assigns
                found = _RESERVED.match(self.text, self.i, self.end) if reserved else None
                if found is None:
                    self._simple_word(command)
                    continue
                if found[0] == "esac" and close == ";;":
                    self.finish(command)
                    return
                if found[0] in _OPENERS:
                    openers.append(pipeline)
                elif found[0] in _CLOSERS and openers:
                    pipeline = openers.pop()
                self._reserved(found[0], command)
                if found[0] == "case" and openers:
                    pipeline = openers.pop()

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

    # ---- redirections ------------------------------------------------------------------------

    def _redirect(self, command: Command) -> None:
        start = self.i
        operator = _REDIRECT.match(self.text, self.i)
        if operator is None:
            raise Refusal(start, "this redirection is not understood")
        self.i = operator.end()
        self.blanks()
        if operator[0] in ("<<", "<<-"):
            document = self._delimiter(start, operator[0] == "<<-")
            command.documents.append(document)
            self.pending.append(document)
            self.result.documents.append(document)
            return
        if self.i >= self.end or (
            self.text[self.i] in _METACHARACTERS - {"<", ">"} and self.text[self.i] != "("
        ):
            raise Refusal(start, f"nothing stands behind the redirection `{operator[0]}`")
        context = "herestring" if operator[0] == "<<<" else "redirect"
        command.redirects.append(Redirect(operator[0], self.word(context, whole=False)))

    def _delimiter(self, start: int, tabs: bool) -> HereDocument:
        found = self.candidate()
        if found is not None and self.known(found):
            raise Refusal(self.i, f"{found} stands where a here-document's delimiter belongs")
        parts: list[str] = []
        quoted = False
        while self.i < self.end and self.text[self.i] not in _METACHARACTERS:
            character = self.text[self.i]
            if character in "'\"":
                stop = self.text.find(character, self.i + 1, self.end)
                inner = self.text[self.i + 1 : stop]
                if stop < 0 or "\n" in inner or (character == '"' and re.search(r"[\\$`]", inner)):
                    raise Refusal(self.i, "this here-document's delimiter is not understood")
                parts.append(inner)
                quoted = True
                self.i = stop + 1
            elif character == "\\" and self.i + 1 < self.end and self.text[self.i + 1] != "\n":
                parts.append(self.text[self.i + 1])
                quoted = True
                self.i += 2
            elif character in "\\$`":
                raise Refusal(self.i, "this here-document's delimiter is not understood")
            else:
                parts.append(character)
                self.i += 1
        if not parts:
            raise Refusal(start, "this here-document has no delimiter")
        return HereDocument(start, "".join(parts), quoted, tabs)

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
            elif character == "(" and self._opens_array(assigned, start):
                self._array(assigned or "")
            elif character == "(" and self.i > start and self.text[self.i - 1] in "?*+@!":
                self._extended_pattern(context)
            elif character in _METACHARACTERS and not (regex and parentheses > 0):
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

    def _opens_array(self, assigned: str | None, start: int) -> bool:
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


__all__ = ["Lexer", "NotArithmetic", "Refusal", "lex"]
