"""Where a value would be evaluated a second time, which no quoting can make safe.

The shell's own quoting ends when a program starts. Where that program runs its argument as code
(`eval`, `sh -c`, `ssh`, awk's program), where the shell evaluates numbers and names (`let`,
`[[ -eq ]]`, `declare -i`), and where a variable decides what is run (`PATH`), a value of a job is
refused, unless its type makes it harmless. The marks follow one step through variables: `n=<<x>>`,
and `$((n+1))` later. Text that is quoted once more by `|sh` may stand where a shell reads it as a
bare word. It is a heuristic over simple commands; see `programs` for what it knows.
"""

from __future__ import annotations

import posixpath
import re
from bisect import bisect_left
from dataclasses import dataclass
from typing import Iterable, Iterator, Sequence

from hpc_batch.template import lexer, programs
from hpc_batch.template.programs import PROGRAMS, Program
from hpc_batch.template.reader import Refusal
from hpc_batch.template.shape import Command, Lexed, Spot, Use, Word

_COMPARISON = ("-eq", "-ne", "-lt", "-le", "-gt", "-ge")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BARE = frozenset({"bare", "assign", "redirect", "herestring", "pattern", "cond"})
_READ_VALUES = "dinNptu"
_NUMBER_WAY_OUT = "declare it: #HPC --arg {name}:int"
_PROGRAM_WAY_OUT = "write the program's name, or set it in [hpc_env]"


@dataclass(frozen=True)
class Mark:
    """A spot whose value is evaluated again, and the message that says so."""

    spot: Spot
    text: str


def marks(lexed: Lexed) -> list[Mark]:
    """Return every spot whose value a program or the shell evaluates a second time."""
    return list(_Examination(lexed).run())


class _Examination:
    """Goes through the commands of a script; `wrapped`, through the text of one that is quoted
    once more: there any word may be a program, and no further quoting counts.
    """

    def __init__(self, lexed: Lexed, *, wrapped: bool = False) -> None:
        self.lexed = lexed
        self.wrapped = wrapped
        self.starts = [spot.placeholder.start for spot in lexed.spots]
        self.tainted = self._tainted()
        self.associative = {
            word.assigned or word.text
            for command in lexed.commands
            if command.words and command.words[0].text in programs.DECLARING
            if any(w.text.startswith("-") and "A" in w.text for w in command.words[1:])
            for word in command.words[1:]
        }

    def run(self) -> Iterator[Mark]:
        for command in self.lexed.commands:
            yield from self._special_variables(command)
            yield from self._names_and_numbers(command)
            for words in self._programs(command):
                program = PROGRAMS[posixpath.basename(words[0].text)]
                yield from self._program(command, words, program)
            yield from self._started(command)
        for use in self.lexed.uses:
            if use.arithmetic and use.array not in self.associative:
                yield from self._flows(use.name)

    # ---- which spots -------------------------------------------------------------------------

    def _between(self, start: int, end: int) -> list[Spot]:
        low, high = bisect_left(self.starts, start), bisect_left(self.starts, end)
        return [s for s in self.lexed.spots[low:high] if s.context != "comment"]

    def _tainted(self) -> dict[str, list[tuple[Word, Spot]]]:
        """Return the variables that are given a value as it is."""
        found: dict[str, list[tuple[Word, Spot]]] = {}
        for command in self.lexed.commands:
            words = [w for w in (*command.assigns, *command.words) if w.assigned]
            pairs = [(w.assigned, w) for w in words]
            if len(command.words) > 2 and command.words[0].text in ("for", "select"):
                pairs += [(command.words[1].text, w) for w in command.words[2:]]
            for name, word in pairs:
                for spot in self._between(word.start, word.end):
                    if name and spot.depth == word.depth:
                        found.setdefault(name, []).append((word, spot))
        return found

    def _uses(self, words: Iterable[Word]) -> list[Use]:
        spans = [(w.start, w.end) for w in words]
        return [u for u in self.lexed.uses if any(a <= u.at < b for a, b in spans)]

    def _flows(self, name: str) -> Iterator[Mark]:
        for _word, spot in self.tainted.get(name, ()):
            yield _mark(spot, f"the shell evaluates ${name} as a number or a name", _NUMBER_WAY_OUT)

    # ---- the shell itself --------------------------------------------------------------------

    def _special_variables(self, command: Command) -> Iterator[Mark]:
        words = list(command.assigns)
        if command.words and command.words[0].text in programs.DECLARING | {"env"}:
            words += command.words[1:]
        for word in words:
            if word.assigned in programs.SPECIAL_VARIABLES:
                for spot in self._between(word.start, word.end):
                    text = f"{word.assigned} decides what is run"
                    yield _mark(spot, text, "set it in [hpc_env]")

    def _names_and_numbers(self, command: Command) -> Iterator[Mark]:
        if not command.words:
            return
        name, words = command.words[0].text, command.words[1:]
        found: list[Word] = []
        if name in programs.DECLARING:
            options = "".join(w.text for w in words if w.text.startswith("-"))
            if "i" in options or "n" in options:
                found += words
            array = "a" in options or "A" in options
            for word in words:
                value = word.text[len(word.lead) :]
                compound = "=(" in word.lead or (array and not value.startswith("("))
                found += [word] if "=" not in word.lead or compound else []
        elif name in ("let", "unset", "getopts"):
            found += words
        elif name == "printf":
            found += _after(words, ("-v",))
            found += [w for w in words[:1] if not w.literal and not w.lead]
        elif name in ("test", "["):
            found += _after(words, ("-v", "-R"))
            pairs = zip(words, words[1:])
            found += [b for a, b in pairs if not (a.literal or a.lead) and not b.literal]
        elif name == "[[":
            found += _after(words, ("-v", "-R"))
            for before, operator, after in zip(words, words[1:], words[2:]):
                found += [before, after] if operator.text in _COMPARISON else []
        elif name in ("read", "mapfile", "readarray"):
            found += _read_names(words)
        elif name == "compgen":
            found += words
        for word in found:
            for spot in self._between(word.start, word.end):
                text = "the shell would evaluate the value as a number or a name"
                yield _mark(spot, text, _NUMBER_WAY_OUT)
            names = [use.name for use in self._uses([word])]
            names += _NAME.findall(word.text) if name in ("let", "[[") or "i" in word.text else []
            for variable in names:
                yield from self._flows(variable)

    def _started(self, command: Command) -> Iterator[Mark]:
        """Refuse values that choose a program behind `exec`, `env`, or in a variable."""
        words = command.words
        while words and words[0].text in programs.STARTERS:
            words = [w for w in words[1:] if w.assigned is None]
            while words and words[0].lead.startswith("-") and words[0].text != "--":
                words = words[1:]
        if not words:
            return
        first = words[0]
        text = "a job's value would choose the program that runs"
        if first is not command.words[0]:
            for spot in self._between(first.start, first.end):
                if spot.depth == first.depth:
                    yield _mark(spot, text, _PROGRAM_WAY_OUT)
        for use in self._uses([first]):
            for word, spot in self.tainted.get(use.name, ()):
                if use.at <= first.start + 1 and word.lead.endswith("="):
                    yield _mark(spot, text, _PROGRAM_WAY_OUT)

    # ---- programs ----------------------------------------------------------------------------

    def _programs(self, command: Command) -> Iterator[Sequence[Word]]:
        """Return the command, and the commands among its arguments, that evaluate something."""
        words = command.words
        for index, word in enumerate(words):
            if word.literal and posixpath.basename(word.text) in PROGRAMS:
                yield words[index:]
            first = index == 0 and posixpath.basename(word.text) in programs.WRAPPERS
            if index == 0 and not first and not self.wrapped and not _runs_others(word):
                return

    def _program(self, command: Command, words: Sequence[Word], program: Program) -> Iterator[Mark]:
        name = posixpath.basename(words[0].text)
        code, from_stdin = _code(words, program)
        joined = " ".join(w.text for w in code)
        for word in code:
            yield from self._evaluated(self._between(word.start, word.end), joined, program, name)
        for use in self._uses(code):
            for _word, spot in self.tainted.get(use.name, ()):
                yield _evaluated(spot, program, name)
        if not from_stdin:
            return
        for document in command.documents:
            spots = self._between(document.start, document.end)
            yield from self._evaluated(spots, document.text, program, name)
        for redirect in command.redirects:
            if redirect.operator == "<<<" or redirect.word.text.startswith("<("):
                spots = self._between(redirect.word.start, redirect.word.end)
                yield from self._evaluated(spots, redirect.word.text, program, name)
        if command.piped_from is not None:
            yield from self._piped(command.piped_from, command.start, program, name)

    def _piped(self, start: int, end: int, program: Program, name: str) -> Iterator[Mark]:
        for spot in self._between(start, end):
            yield _evaluated(spot, program, name)
        for document in self.lexed.documents:
            if start <= document.at < end:
                spots = self._between(document.start, document.end)
                yield from self._evaluated(spots, document.text, program, name)

    def _evaluated(
        self, spots: Sequence[Spot], text: str, program: Program, name: str
    ) -> Iterator[Mark]:
        for spot in spots:
            if self.wrapped or program.language != "shell" or not _quoted_again(spot, text):
                yield _evaluated(spot, program, name)


def _mark(spot: Spot, text: str, way_out: str) -> Mark:
    placeholder = spot.placeholder
    return Mark(spot, f"{text}; " + way_out.format(x=placeholder, name=placeholder.name))


def _evaluated(spot: Spot, program: Program, name: str) -> Mark:
    return _mark(spot, f"{name} would run the value as {program.language} code", program.way_out)


def _runs_others(word: Word) -> bool:
    """Tell whether a program's name is one that runs its arguments, as xargs does."""
    return posixpath.basename(word.text) in ("xargs", "parallel")


def _after(words: Sequence[Word], options: Sequence[str]) -> list[Word]:
    return [after for word, after in zip(words, words[1:]) if word.text in options]


def _read_names(words: Sequence[Word]) -> list[Word]:
    found: list[Word] = []
    skip = False
    for word in words:
        option = word.lead.startswith("-") and len(word.lead) > 1
        if not skip and not option:
            found.append(word)
        skip = option and word.literal and word.text[-1] in _READ_VALUES and not skip
    return found


def _code(words: Sequence[Word], program: Program) -> tuple[list[Word], bool]:
    """Return the words that are code, and whether standard input is."""
    if program.everything:
        operands = _operands(words[1:], program)
        return list(words[1:]), program.stdin and len(operands) <= (program.operand or 0)
    found = [word for word in words if program.remote and ":" in word.lead]
    operands = []
    elsewhere = from_stdin = dashes = False
    rest = list(words[1:])
    while rest:
        word = rest.pop(0)
        if word.text in ("-", "--") or not word.lead.startswith("-"):
            if word.text == "--":
                dashes = not operands
                operands += rest
                break
            operands.append(word)
            if program.stops and len(operands) > (program.operand or 0):
                operands += rest
                break
            continue
        kind, inline = _option(word, program)
        if word.text == "-s" and program.language == "shell":
            from_stdin = True
        if kind == "code":
            value = word if inline else next((w for w in rest if _is_value(w, program)), None)
            found += [value] if value is not None else []
            rest = rest if inline or value is None else rest[rest.index(value) + 1 :]
        elif kind == "file":
            elsewhere = True
        if kind in ("file", "valued") and not inline:
            rest = rest[1:]
        elif kind == "pair":
            rest = rest[2:]
    if program.operand is not None:
        if not found and not elsewhere:
            found += operands[program.operand : program.operand + 1]
    elif operands and not (found or dashes or operands[0].lead or operands[0].literal):
        found.append(operands[0])  # its value may begin with a dash, and be an option
    script = bool(operands) and operands[0].text != "-" and not from_stdin
    if program.language == "SQL":
        script = program.operand is not None and len(operands) > program.operand
    return found, program.stdin and not found and not script


def _operands(words: Sequence[Word], program: Program) -> list[Word]:
    found: list[Word] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.lead.startswith("-"):
            found.append(word)
        elif _option(word, program) == ("valued", False):
            rest = rest[1:]
    return found


def _is_value(word: Word, program: Program) -> bool:
    """Tell whether the word behind -c is its value: shells read more options before it."""
    return program.language != "shell" or not re.match("[-+][a-zA-Z]", word.lead)


def _option(word: Word, program: Program) -> tuple[str, bool]:
    """Return what an option is, and whether its value is in the same word."""
    table: list[tuple[str, tuple[str, ...]]] = [
        ("code", program.code),
        ("file", program.files),
        ("valued", program.valued),
        ("pair", program.pairs),
    ]
    option, equals, _ = word.lead.partition("=")
    for kind, names in table:
        for name in names:
            if option in (name, f"-{name}") and (len(name) > 1):
                return kind, bool(equals)
    if option.startswith("--"):
        return "flag", False
    for position, letter in enumerate(word.lead[1:], 1):
        for kind, names in table:
            if letter in names:
                rest = len(word.lead) > position + 1 or not word.literal
                shell = kind == "code" and program.language == "shell"
                return kind, rest and not shell
    return "flag", False


def _quoted_again(spot: Spot, text: str) -> bool:
    """Tell whether `|sh` quotes a value for the shell that reads this text."""
    if spot.placeholder.last_filter != "sh":
        return False
    try:
        inner = lexer.lex(text, "bash", None)
    except Refusal:
        return False
    here = [s for s in inner.spots if str(s.placeholder) == str(spot.placeholder)]
    fine = all(s.context in _BARE and not s.refusal and not s.command_word for s in here)
    again = {str(mark.spot.placeholder) for mark in _Examination(inner, wrapped=True).run()}
    return bool(here) and fine and str(spot.placeholder) not in again
