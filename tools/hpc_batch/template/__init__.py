"""Templates: the script of a job, with places for the job's values.

    template = load(folder, "my_container")
    script = render(template, {"level": "6", "input": "foo.mp3"}, {"workspace": "/w"})

The text of a template is a shell script with placeholders `<<name>>`. `placeholders` finds what
looks like one, `lexer` (on `reader`) says in which quoting context each stands, `rules` chooses the
form of the reference for each context, `evaluation` refuses what would be evaluated a second time,
`compiled` puts that together for a set of names, and `rendering` fills in the values: assigned once
in a preamble (`preamble`), referred to in the body. `directives` and
`parameters` read the `#HPC` lines, `filters` evaluates `<<name|filter>>`, `advice` says what is
allowed but risky. Nothing here has an effect but reading templates; `syntax` runs other programs
over a template, and only the command line calls it.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Collection, Iterable, Mapping

from hpc_batch.errors import Problem, TemplateError
from hpc_batch.template import advice, directives, preamble
from hpc_batch.template.compiled import Compiled, Compiler, Names
from hpc_batch.template.directives import Directives
from hpc_batch.template.filters import Value
from hpc_batch.template.finding import Finding, did_you_mean
from hpc_batch.template.parameters import ArgType, shown
from hpc_batch.template.placeholders import find
from hpc_batch.template.rendering import Given, Rendering, as_value
from hpc_cluster import files as disk

__all__ = [
    "ArgType",
    "Directives",
    "Finding",
    "Template",
    "check",
    "lint",
    "load",
    "parse",
    "render",
    "scripts",
]

SUFFIX = ".template"
SCRIPT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
SITE_NAMES = frozenset({"workspace", "scripts", "containers"})
"""What every site's [hpc_env] holds."""

TEMPLATE_BYTES = 1 << 20
_COMPILATIONS = 32
_SHELLS = {"bash": "bash", "rbash": "bash", "sh": "sh", "dash": "sh", "ash": "sh"}


@dataclass(frozen=True)
class Template:
    """A template that was read and whose directives are right."""

    name: str
    """The script's name: what a job file writes in `script`."""
    text: bytes
    shell: str | None
    """bash or sh; None: another interpreter, whose text gets only plain values."""
    directives: Directives
    candidates: frozenset[str]
    """Every name that looks like a placeholder's."""
    _compiled: dict[Names, Compiled] = field(default_factory=dict, compare=False, repr=False)

    @property
    def source(self) -> str:
        """The text as str; bytes that are no UTF-8 are surrogate escapes."""
        return self.text.decode("utf-8", "surrogateescape")

    def compiled(self, known: Collection[str] | None, trusted: Collection[str]) -> Compiled:
        """Return the template compiled for these names; kept for the next job with the same."""
        names = Names(
            None if known is None else frozenset(known),
            self.candidates.intersection(trusted),
        )
        key = Names(None if names.known is None else self.candidates & names.known, names.trusted)
        found = self._compiled.get(key)
        if found is None:
            args = self.directives.args
            found = Compiler(self.name, self.source, self.shell, args, names).compile()
            if not found.findings:
                if len(self._compiled) >= _COMPILATIONS:
                    self._compiled.clear()
                self._compiled[key] = found
        return found


def scripts(folder: Path) -> list[str]:
    """Return the names of the templates in a folder."""
    found = (n[: -len(SUFFIX)] for n in disk.names(str(folder)) if n.endswith(SUFFIX))
    return [name for name in found if SCRIPT_NAME.fullmatch(name)]


def load(folder: Path, script: str) -> Template:
    """Return the template of a script.

    Raises TemplateError with every problem, and OSError for what may pass.
    """
    if not SCRIPT_NAME.fullmatch(script):
        text = f"script: {shown(script)} is not the name of a template (letters, digits, ._-)"
        raise TemplateError([Problem(None, text)])
    try:
        text_bytes = _read(folder, script)
    except OSError as error:
        if error.errno in disk.PASSING:
            raise
        raise TemplateError([Finding(None, f"cannot be read: {error.strerror}", script)]) from error
    return parse(script, text_bytes)


def _read(folder: Path, script: str) -> bytes:
    """Return the text of a template. Raises TemplateError where it is missing, OSError."""
    path = str(folder / (script + SUFFIX))
    for is_second in (False, True):
        with contextlib.suppress(FileNotFoundError):
            return disk.read_bytes(disk.real_path(path), TEMPLATE_BYTES)
        # RACE: a file server that has not heard of it yet; what lists a folder asks the server.
        known = scripts(folder)
        if script not in known or is_second:
            break
    listed = f"; known are {', '.join(known)}" if known else f"; there are none in {folder}"
    text = f"script: there is no template {script!r}{did_you_mean(script, known) or listed}"
    raise TemplateError([Problem(None, text)])


@lru_cache(maxsize=64)
def parse(name: str, text: bytes) -> Template:
    """Return a template from its text. Raises TemplateError with every problem of its own."""
    source = text.decode("utf-8", "surrogateescape")
    findings = [
        Finding(source.count("\n", 0, source.index(sign)) + 1, problem, name)
        for sign, problem in (
            ("\r", "a carriage return; write line ends without it: sed -i 's/\\r$//' FILE"),
            ("\0", "a NUL character; this is no text"),
            ("\ufeff", "a byte order mark; remove it"),
            (preamble.PREFIX, f"{preamble.PREFIX}… is reserved for the values; rename it"),
            (preamble.NEWLINE_VARIABLE, f"{preamble.NEWLINE_VARIABLE} is reserved; rename it"),
        )
        if sign in source
    ]
    found, problems = directives.read(source, name)
    findings += problems
    if findings:
        raise TemplateError(findings)
    candidates = frozenset(p.name for p in find(source))
    return Template(name, text, _shell(source), found, candidates)


def _shell(source: str) -> str | None:
    """Return the shell that interprets a script, None for any other interpreter."""
    if not source.startswith("#!"):
        return "sh"
    words = source.split("\n", 1)[0][2:].split()
    if words and os.path.basename(words[0]) == "env":
        words = [w for w in words[1:] if not w.startswith("-") and "=" not in w]
    return _SHELLS.get(os.path.basename(words[0])) if words else None


def check(
    template: Template, names: Collection[str], trusted: Collection[str] = SITE_NAMES
) -> list[Finding]:
    """Return every error of a template for jobs that give these names; `trusted` are the site's."""
    known = {*names, *trusted, *template.directives.args}
    return template.compiled(known, trusted).findings


def lint(
    template: Template,
    names: Collection[str] | None = None,
    trusted: Collection[str] = SITE_NAMES,
) -> list[Finding]:
    """Return errors and advice for a template's author, by line.

    Without `names` any name may be a job's, so that only the template itself is examined.
    """
    known = None if names is None else {*names, *trusted, *template.directives.args}
    found = list(template.compiled(known, trusted).findings)
    if template.shell is not None and not found:
        given = Names(None if known is None else frozenset(known), frozenset(trusted))
        found += advice.advise(template.name, template.source, template.shell, given)
    return sorted(found, key=lambda finding: finding.line or 0)


def render(
    template: Template,
    values: Mapping[str, Given],
    trusted: Mapping[str, str],
    *,
    files: Collection[str] = (),
) -> bytes:
    """Return the script of a job. Raises TemplateError with every problem.

    `values` are the job's arguments and the base names of its inputs and outputs; those are also
    named in `files`, everything else is an argument. `trusted` are the site's variables.
    """
    findings: list[Finding] = []
    all_values = _collect(template, values, trusted, findings)
    _check_arguments(template, all_values, {*files, *trusted}, findings)
    known = {*values, *trusted, *template.directives.args}
    compiled = template.compiled(known, trusted.keys())
    findings += compiled.findings
    if findings:
        raise TemplateError(findings)
    rendering = Rendering(template.name, template.shell, compiled, all_values)
    script = rendering.run()
    if rendering.findings:
        raise TemplateError(sorted(rendering.findings, key=lambda finding: finding.line or 0))
    return script


def _collect(
    template: Template,
    values: Mapping[str, Given],
    trusted: Mapping[str, str],
    findings: list[Finding],
) -> dict[str, Value]:
    found: dict[str, Value] = {
        name: declared.default
        for name, declared in template.directives.args.items()
        if declared.default is not None
    }
    for name, given in (*values.items(), *trusted.items()):
        try:
            found[name] = as_value(given)
        except ValueError as error:
            findings.append(Finding(None, f"{name}: the value {error}", template.name))
    for name in values.keys() & trusted.keys():
        findings.append(Finding(None, f"{name} is set by the site; rename it", template.name))
    return found


def _check_arguments(
    template: Template,
    values: Mapping[str, Value],
    others: Collection[str],
    findings: list[Finding],
) -> None:
    """Check a job's arguments against the declared parameters, if there are any."""
    declared = template.directives.args
    if not declared:
        return

    def say(text: str) -> None:
        findings.append(Finding(None, text, template.name))

    for name in sorted(values.keys() - declared.keys() - set(others)):
        near = did_you_mean(name, declared) or f"; they are {', '.join(sorted(declared))}"
        say(f"{name} is none of the template's arguments{near}")
    for name, kind in declared.items():
        if name not in values:
            say(f"the argument {name} is missing ({_described(kind)})")
            continue
        value = values[name]
        for element in _elements(value):
            problem = kind.problem(element)
            if problem is not None:
                say(f"{name}: {shown(element)} {problem}")


def _elements(value: Value) -> Iterable[str]:
    return value if isinstance(value, list) else [value]


def _described(kind: ArgType) -> str:
    return "one of " + ", ".join(kind.choices) if kind.choices else f"a {kind.kind}"
