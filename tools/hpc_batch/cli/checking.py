"""Verbs that check without running: lint, render; and the check before a drop."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable

from hpc_batch import config as configuration
from hpc_batch import description, jobfile, template
from hpc_batch.cli import exit_codes
from hpc_batch.cli.ini import load, load_if_any
from hpc_batch.cli.output import CommandError, Output
from hpc_batch.cli.requests import Lint, Render
from hpc_batch.config import Config
from hpc_batch.errors import ConfigError, HpcBatchError, JobFileError, Problem
from hpc_batch.template.syntax import syntax_check

SAMPLE_ID = "00000000-00000000000-0000000000000000"
"""The job whose workspace `render` shows."""

ENDINGS = {".ini": "config", ".template": "template", ".job": "job"}

FAILURES = {
    "config": exit_codes.CONFIGURATION,
    "job": exit_codes.BAD_JOB_FILE,
    "template": exit_codes.FAILED,
}
"""The exit code of a file with errors, by its kind; of several, the first that stands here."""


@dataclass(frozen=True)
class Finding:
    """One thing that `lint` found."""

    file: str
    kind: str
    """config, job or template."""
    line: int | None
    severity: str
    """error or advice."""
    text: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {'' if self.severity == 'error' else self.severity + ': '}{self.text}"


def check_drop(name: str, data: bytes, config: Config | None) -> description.Described | None:
    """Check a job file as the service will, as far as is known here.

    Returns what it becomes, None without a configuration. Raises JobFileError with every problem.
    """
    if len(data) > jobfile.JOB_BYTES:
        raise JobFileError([Problem(None, f"is larger than {jobfile.JOB_BYTES >> 20} MiB")])
    if config is None:
        jobfile.parse(data)
        return None
    return description.describe(SAMPLE_ID, name, data, config)


def of_problem(file: str, kind: str, problem: Problem) -> Finding:
    """Return a problem of a file as a finding; some problems of jobs are their template's."""
    if kind == "job" and isinstance(problem, template.Finding):
        file = f"{problem.template}.template"
    return Finding(file, kind, problem.line, "error", problem.text)


def lint(request: Lint, output: Output) -> int:
    """Check files by their endings; without files, the configuration and its templates."""
    files = list(request.files)
    findings: list[Finding] = []
    config: Config | None = None
    if not files:
        config = load(request)
        files = [str(config.path), *sorted(map(str, config.cronjob.templates.glob("*.template")))]
    elif any(not file.endswith(".ini") for file in files):
        config = load_if_any(request)
    for file in files:
        kind = ENDINGS.get(Path(file).suffix)
        if kind is None:
            text = f"{file}: nothing is known about this ending; known are {', '.join(ENDINGS)}"
            raise CommandError(exit_codes.USAGE, "usage", text)
        findings += _findings(file, kind, config)
    if output.json:
        output.document("lint", {"files": files, "findings": [vars(f) for f in findings]})
    else:
        for finding in findings:
            output.line(str(finding))
    wrong = {f.kind for f in findings if f.severity == "error"}
    return next((code for kind, code in FAILURES.items() if kind in wrong), exit_codes.OK)


def render(request: Render, output: Output) -> int:
    """Print the script that a job would run, for a sample workspace."""
    config = load(request)
    data = sys.stdin.buffer.read() if request.file == "-" else _read(request.file)
    try:
        made = check_drop(Path(request.file).name, data, config)
    except HpcBatchError as error:
        failure = CommandError(error.exit_code, "job_file", str(error))
        failure.problems = [str(f) for f in _of_error(request.file, "job", error)]
        raise failure from None
    assert made is not None  # there is a configuration
    script = made.script.replace(str(made.description["word"]).encode(), b"a1")
    text = script.decode("utf-8", "surrogateescape")
    if output.json:
        output.document("render", {"script": text, "description": made.description})
    else:
        output.stream(text)
    return exit_codes.OK


def _findings(file: str, kind: str, config: Config | None) -> list[Finding]:
    try:
        if kind == "config":
            configuration.load(Path(file))
        elif kind == "job":
            check_drop(Path(file).name, _read(file), config)
        else:
            return _of_template(Path(file), config)
    except HpcBatchError as error:
        return list(_of_error(file, kind, error))
    return []


def _of_error(file: str, kind: str, error: HpcBatchError) -> Iterable[Finding]:
    if isinstance(error, JobFileError):
        for problem in error.problems:
            yield of_problem(file, kind, problem)
    elif isinstance(error, ConfigError):
        for text in error.problems:  # each begins with the file and the line
            line, _, rest = text.removeprefix(f"{Path(file).absolute()}:").partition(":")
            number = int(line) if line.isdigit() else None
            yield Finding(file, kind, number, "error", (rest if number else text).strip())
    else:
        yield Finding(file, kind, None, "error", str(error))


def _of_template(path: Path, config: Config | None) -> list[Finding]:
    """Check a template by itself, with the names that the site gives to templates."""
    chosen = template.load(path.parent, path.stem)
    trusted = template.SITE_NAMES | (config.env.keys() if config is not None else set())
    found = template.lint(chosen, None, trusted)
    if not any(finding.severity == "error" for finding in found):
        found += syntax_check(chosen)
    return [Finding(str(path), "template", f.line, f.severity, f.text) for f in found]


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(jobfile.JOB_BYTES + 1)
    except OSError as error:
        what = (error.strerror or str(error)).lower()
        raise CommandError(exit_codes.NO_INPUT, "no_input", f"{path}: {what}") from None
