"""What is allowed in a template, but often not meant.

Byte-exact delivery does not solve everything: a value may begin with a dash, be empty, or be `-n`.
These are hints for a template's author; nothing here stops a job.
"""

from __future__ import annotations

import posixpath
from typing import Iterator

from hpc_batch.template.compiled import Names
from hpc_batch.template.finding import Finding
from hpc_batch.template.lexer import Lexer
from hpc_batch.template.reader import Refusal
from hpc_batch.template.shape import Command, Spot, Word

_FILE_TOOLS = frozenset(
    ("rm", "cp", "mv", "ln", "mkdir", "rmdir", "cat", "touch", "chmod", "chown", "ls", "tar")
    + ("find", "sed", "sort", "rsync", "zip", "git", "wget", "curl")
)
_CODE_SUFFIXES = (".sh", ".py", ".R", ".r", ".pl", ".m", ".bash", ".slurm", ".sbatch")


def advise(name: str, text: str, shell: str, names: Names) -> list[Finding]:
    """Return advice on a template's lines; what the operator sets needs none."""
    reader = Lexer(text, shell, names.known)
    try:
        reader.commands("")
    except (Refusal, RecursionError):
        return []
    found: dict[tuple[int, str], Finding] = {}
    spots = [s for s in reader.result.spots if s.placeholder.name not in names.trusted]
    for command in reader.result.commands:
        for spot, said in _about(command, spots, text):
            line = reader.line(spot.placeholder.start)
            sentence = f"{spot.placeholder}: {said}"
            found.setdefault((line, sentence), Finding(line, sentence, name, "advice"))
    return list(found.values())


def _about(command: Command, spots: list[Spot], text: str) -> Iterator[tuple[Spot, str]]:
    program = posixpath.basename(command.words[0].text) if command.words else ""
    for index, word in enumerate(command.words):
        inside = [s for s in spots if word.start <= s.placeholder.start < word.end]
        direct = [s for s in inside if s.depth == word.depth]
        if direct and index:
            yield from _about_word(program, word, direct[0], command, text)
    for redirect in command.redirects:
        duplicates = redirect.operator in (">&", "<&")
        for spot in spots if duplicates else ():
            if redirect.word.start <= spot.placeholder.start < redirect.word.end:
                yield spot, f"a number or - behind `{redirect.operator}` is a descriptor"
    targets = [r.word.text for r in command.redirects if r.operator in (">", ">>", ">|")]
    if any(target.endswith(_CODE_SUFFIXES) for target in targets):
        for document in command.documents:
            for spot in spots:
                here = document.start <= spot.placeholder.start < document.end
                if here and spot.placeholder.last_filter != "sh":
                    way_out = f"quote it for that program: <<{spot.placeholder.name}|sh>>"
                    yield spot, f"it becomes program text of a generated script; {way_out}"


def _about_word(
    program: str, word: Word, spot: Spot, command: Command, text: str
) -> Iterator[tuple[Spot, str]]:
    bare = spot.context == "bare"
    leading = not word.lead
    if bare and leading and text[spot.placeholder.start - 1] == "~":
        yield spot, "`~` before a quoted value is not expanded"
    if bare and word.lead.startswith("~") and word.lead == "~":
        yield spot, "`~` before a quoted value is not expanded"
    if bare and word.lead.startswith("{") and ".." in word.lead:
        yield spot, "a brace range with a value is not expanded; use seq"
    if program == "echo" and leading:
        yield spot, "echo swallows -n and -e, and may expand backslashes; use printf '%s\\n'"
    if program == "cd" and leading:
        yield spot, "`cd -` goes back; write ./ before the value"
    if program in _FILE_TOOLS and leading and not any(w.text == "--" for w in command.words):
        yield spot, f"a value that begins with a dash is an option of {program}; write `--` before"
    variables = program in ("awk", "gawk", "mawk") and any(w.text == "-v" for w in command.words)
    if variables and word.assigned is not None:
        yield spot, "awk -v expands backslashes; pass it in the environment: ENVIRON"
