"""The `#HPC` lines of a template: defaults for its jobs, and its declared parameters.

    #HPC --gpus=1 --time-limit=30m
    #HPC --arg level:int=6 --arg language:text --arg mode:fast,exact

They stand in the leading comments, before the first command, in any number of lines; to the
interpreter they are comments. Words are split and quoted as in a shell. `--name=value` and
`--name value` are the same.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field, replace
from typing import Callable, Literal, Mapping

from hpc_batch.config.values import duration
from hpc_batch.template.finding import Finding, did_you_mean
from hpc_batch.template.parameters import TYPES, ArgType, shown
from hpc_batch.template.placeholders import CANDIDATE

Layout = Literal["flat", "split"]

DELIMITERS = ("EOF", "EOT", "EOD", "END", "EOS")
"""Usual delimiters of here-documents: not for parameters, a template could not be read safely."""

_LINE = re.compile(r"[ \t]*#[ \t]?HPC(?=[ \t]|$)(.*)")
_ARG = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::([^=]*))?(?:=(.*))?", re.DOTALL)
_FOLDERS = re.compile(r"/(?:input|output)(?![\w.<«-])")
_SIZE = re.compile(r"([0-9]{1,9})([KMGT]?)(?:i?B)?", re.IGNORECASE)


@dataclass(frozen=True)
class Directives:
    """What a template says about its jobs."""

    layout: Layout = "flat"
    """Where inputs and outputs lie in the working folder."""
    time_limit: int | None = None
    """Seconds; None: the site's."""
    cpus: int | None = None
    gpus: int | None = None
    memory: int | None = None
    """Bytes. `cpus`, `gpus` and `memory` are what a job needs of its pilot."""
    writable_inputs: bool = False
    """Inputs are copies of the job's own, not read-only links."""
    args: Mapping[str, ArgType] = field(default_factory=dict)
    """The declared parameters; empty: anything is accepted."""


def _count(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch("[0-9]{1,6}", text) or int(text) < least:
            raise ValueError(f"must be a whole number, at least {least}")
        return int(text)

    return parse


def _memory(text: str) -> int:
    found = _SIZE.fullmatch(text)
    if not found or int(found[1]) == 0:
        raise ValueError("must be a size, as in 512M or 32G; a bare number counts GB")
    return int(found[1]) << (10 * " KMGT".index(found[2].upper() or "G"))


def _layout(text: str) -> str:
    if text not in ("flat", "split"):
        raise ValueError("must be flat or split")
    return text


_VALUES: dict[str, Callable[[str], object]] = {
    "cpus": _count(1),
    "gpus": _count(0),
    "memory": _memory,
    "time-limit": duration(1).parse,
    "layout": _layout,
}
_NAMES = (*_VALUES, "writable-inputs", "arg")


def is_directive(line: str) -> bool:
    """Tell whether a line is an `#HPC` line."""
    return _LINE.fullmatch(line) is not None


def leading_lines(text: str) -> int:
    """Return the number of leading lines that are blank or comments."""
    count = 0
    for line in text.split("\n"):
        if line.strip(" \t") and not line.lstrip(" \t").startswith("#"):
            return count
        count += 1
    return count


def read(text: str, template: str) -> tuple[Directives, list[Finding]]:
    """Return a template's directives, and every problem with them."""
    found: dict[str, object] = {}
    args: dict[str, ArgType] = {}
    findings: list[Finding] = []
    leading = leading_lines(text)
    for number, line in enumerate(text.split("\n"), 1):
        match = _LINE.fullmatch(line)
        if match is None:
            continue

        def say(problem: str, number: int = number) -> None:
            findings.append(Finding(number, problem, template))

        if number > leading:
            say("#HPC stands behind the first command, where nothing reads it; move it to the top")
        elif CANDIDATE.search(line):
            say("an #HPC line takes no placeholders; it is read before any job is known")
        else:
            _read_line(match[1], found, args, say)
    layout = found.get("layout") or ("split" if _names_folders(text) else "flat")
    values = {key.replace("-", "_"): value for key, value in found.items()}
    return replace(Directives(), **{**values, "layout": layout, "args": args}), findings  # type: ignore[arg-type]


def _read_line(
    line: str, found: dict[str, object], args: dict[str, ArgType], say: Callable[[str], None]
) -> None:
    try:
        words = shlex.split(line)
    except ValueError:
        say("#HPC: a quote is never closed")
        return
    while words:
        word = words.pop(0)
        option, equals, value = word.partition("=")
        name = option[2:]
        if not option.startswith("--") or name not in _NAMES:
            near = did_you_mean(name, _NAMES) or f"; known are --{', --'.join(_NAMES)}"
            say(f"#HPC: {option} is unknown{near.replace('mean ', 'mean --')}")
            continue
        if name == "writable-inputs":
            if equals:
                say("#HPC: --writable-inputs takes no value")
            found["writable-inputs"] = True
            continue
        if not equals:
            if not words or words[0].startswith("--"):
                say(f"#HPC: --{name} needs a value")
                continue
            value = words.pop(0)
        if name == "arg":
            _read_arg(value, args, say)
        elif name in found:
            say(f"#HPC: --{name} is given twice")
        else:
            try:
                found[name] = _VALUES[name](value)
            except ValueError as error:
                say(f"#HPC: --{name}={value} {error}")


def _read_arg(text: str, args: dict[str, ArgType], say: Callable[[str], None]) -> None:
    match = _ARG.fullmatch(text)
    if match is None:
        say(f"#HPC: --arg {text} must look like name:type=default")
        return
    name, kind, default = match[1], match[2] if match[2] is not None else "text", match[3]
    choices: tuple[str, ...] = ()
    if "," in kind:
        choices, kind = tuple(kind.split(",")), "choice"
        if "" in choices or len(set(choices)) < len(choices):
            say(f"#HPC: --arg {name}: a choice is empty or stands there twice")
            return
    elif kind not in TYPES:
        near = did_you_mean(kind, TYPES) or f"; types are {', '.join(TYPES)} and choices as in a,b"
        say(f"#HPC: --arg {name}: type {kind!r} is unknown{near}")
        return
    if name in args:
        say(f"#HPC: --arg {name} is declared twice")
        return
    if name in DELIMITERS:
        say(f"#HPC: --arg {name}: this is the usual delimiter of a here-document; rename it")
        return
    declared = ArgType(name, kind, choices, default)
    problem = declared.problem(default) if default is not None else None
    if problem:
        say(f"#HPC: --arg {name}: the default {shown(default or '')} {problem}")
    args[name] = declared


def _names_folders(text: str) -> bool:
    """Tell whether a template of the original project's layout is before us."""
    lines = (line for line in text.split("\n") if not line.lstrip(" \t").startswith("#"))
    return any(_FOLDERS.search(line) for line in lines)
