"""The command line: what may be typed, and the values it becomes.

argparse stays in this module. Each verb has a frozen dataclass whose fields are its arguments (see
`requests`); `parse` returns one of them, and the rest of the package knows nothing of namespaces.
"""

from __future__ import annotations

import argparse
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any, Sequence

from hpc_batch.cli.argument_types import add_dry_run, duration, duration_s, moment, pair
from hpc_batch.cli.parser import Parser, add_pass_options, version
from hpc_batch.cli.request import Pass, Request
from hpc_batch.cli.requests import (
    Cancel,
    Check,
    Clean,
    Demo,
    Explain,
    Lint,
    List,
    Logs,
    Overview,
    Pause,
    Render,
    Resume,
    Retry,
    Run,
    Show,
    ShowConfig,
    Submit,
    Wait,
)
from hpc_batch.cli.site_arguments import add_site_verbs
from hpc_batch.status import ANSWERED, IN_FLIGHT


def parse(argv: Sequence[str]) -> Request:
    """Return what was typed.

    Raises CommandError for a wrong command line; --help and --version raise SystemExit.
    """
    return _build(_parser().parse_args(list(argv)))


def _build(namespace: argparse.Namespace) -> Request:
    """Turn the namespace into the dataclass of its verb."""
    values = vars(namespace)
    shape: Any = values["shape"]
    taken = {field.name: values[field.name] for field in fields(shape)}
    if "files" in taken and not isinstance(taken["files"], list):
        taken["files"] = [] if taken["files"] is None else [taken["files"]]
    for name, value in taken.items():
        taken[name] = tuple(value) if isinstance(value, list) else value
    request: Request = shape(**taken)
    return request


# ---- the parsers -----------------------------------------------------------------------------

EXAMPLES = """\
examples:
  hpc-batch submit --script my_container --arg level=6 --input input=foo.mp3 --output txt=foo.txt
  hpc-batch list --state failed --since 4d

JOB is a name (with or without .job), an id or its unique beginning, a pattern such as 'night-*',
`last`, or `failed`. Exit codes and formats: README.md
"""


def _parser() -> Parser:
    parser = Parser(
        prog="hpc-batch",
        description="Run batch jobs on an HPC cluster in one wait of its queue.",
        epilog=EXAMPLES,
    )
    parser.add_argument("--version", action="version", version=version())
    _add_common(parser, config=None, dropbox=None, json=False, debug=False)
    verbs = parser.add_subparsers(metavar="VERB", title="verbs", required=True, parser_class=_Verb)
    _add_user_verbs(verbs)
    _add_looking_verbs(verbs)
    _add_operator_verbs(verbs)
    add_site_verbs(verbs)
    return parser


class _Verb(Parser):
    """The parser of one verb; it takes the common options too."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        nothing = argparse.SUPPRESS
        _add_common(self, config=nothing, dropbox=nothing, json=nothing, debug=nothing)


def _add_common(parser: Parser, **defaults: Any) -> None:
    common = parser.add_argument_group("common options")
    common.add_argument(
        "-c",
        "--config",
        metavar="CONFIG",
        type=Path,
        default=defaults["config"],
        help="the ini file (default: $HPC_BATCH_CONFIG, ./hpc_batch.ini, "
        "~/.config/hpc_batch/hpc_batch.ini, /etc/hpc_batch/hpc_batch.ini)",
    )
    common.add_argument(
        "--dropbox",
        metavar="FOLDER",
        type=Path,
        default=defaults["dropbox"],
        help="the dropbox, where the ini is not yours to read (default: $HPC_BATCH_DROPBOX)",
    )
    common.add_argument(
        "--json",
        action="store_true",
        default=defaults["json"],
        help="print data, and errors on stderr, as one JSON document",
    )
    common.add_argument(
        "--debug",
        action="store_true",
        default=defaults["debug"],
        help="tell on stderr what is done, with tracebacks",
    )


def _add_period(parser: argparse.ArgumentParser, default: float) -> None:
    parser.add_argument(
        "--period",
        metavar="TIME",
        type=duration_s,
        default=default,
        help="how often to look (default: %(default)gs)",
    )


def _add_drop_options(parser: argparse.ArgumentParser, nargs: str) -> None:
    parser.add_argument("files", metavar="FILE", nargs=nargs, help="a job file; - reads stdin")
    parser.add_argument("--name", help="the drop's name (default: the file's own)")
    parser.add_argument("--script", help="instead of a FILE: the template's name")
    for option, what in (("arg", "VALUE"), ("input", "PATH"), ("output", "PATH")):
        parser.add_argument(
            f"--{option}",
            dest=f"{option}s",
            metavar=f"KEY={what}",
            type=pair,
            action="append",
            default=[],
            help=f"with --script: an {option}",
        )
    add_dry_run(parser)


def _add_user_verbs(verbs: Any) -> None:
    submit = verbs.add_parser("submit", help="drop jobs", description="Check jobs and drop them.")
    _add_drop_options(submit, "*")
    submit.set_defaults(shape=Submit)

    run = verbs.add_parser(
        "run",
        help="drop a job and wait for its answer",
        description="Drop a job, wait for its answer and print it. With --lwlw do not wait: drop "
        "the job unless it was dropped before under this name, and exit with 0 (ok), 1 (error) or "
        "255 (ask again).",
    )
    _add_drop_options(run, "?")
    run.add_argument("--timeout", metavar="TIME", type=duration_s, help="wait no longer than this")
    run.add_argument("--lwlw", action="store_true", help="submit or check, never wait")
    _add_period(run, 2.0)
    run.set_defaults(shape=Run)

    wait = verbs.add_parser("wait", help="wait for answers", description="Wait for answers.")
    wait.add_argument("jobs", metavar="JOB", nargs="+")
    wait.add_argument("--timeout", metavar="TIME", type=duration_s, help="wait no longer than this")
    _add_period(wait, 2.0)
    wait.set_defaults(shape=Wait)

    check = verbs.add_parser(
        "check",
        help="is it done? 0 ok, 1 failed, 255 waiting",
        description="Exit with 0 when the job is done and ok, 1 when it failed, 255 before that.",
    )
    check.add_argument("job", metavar="JOB")
    check.set_defaults(shape=Check)

    for name, shape, text in (
        ("cancel", Cancel, "ask for jobs to be cancelled"),
        ("retry", Retry, "turn answers back into drops"),
    ):
        parser = verbs.add_parser(name, help=text, description=f"{text.capitalize()}.")
        parser.add_argument("jobs", metavar="JOB", nargs="+")
        add_dry_run(parser)
        parser.set_defaults(shape=shape)


def _add_looking_verbs(verbs: Any) -> None:
    states = [*IN_FLIGHT, *ANSWERED, "failed", "active"]
    list_ = verbs.add_parser(
        "list",
        help="the jobs in flight and the latest answers",
        description="List jobs: those in flight, and those answered lately.",
    )
    list_.add_argument(
        "--state",
        dest="states",
        action="append",
        choices=states,
        default=[],
        metavar="STATE",
        help=f"only jobs in this state, may come again: {', '.join(states)}",
    )
    list_.add_argument(
        "--since",
        metavar="TIME",
        type=duration,
        default=timedelta(days=1),
        help="answers of so long ago too (default: 1d)",
    )
    list_.add_argument("--all", action="store_true", help="all answers that are known")
    list_.set_defaults(shape=List)

    show = verbs.add_parser("show", help="all about jobs", description="Show all about jobs.")
    show.add_argument("jobs", metavar="JOB", nargs="+")
    show.set_defaults(shape=Show)

    logs = verbs.add_parser(
        "logs",
        help="what a job wrote",
        description="Print what a job's script wrote; of a running one, the end of it so far.",
    )
    logs.add_argument("job", metavar="JOB")
    logs.add_argument("--stderr", action="store_true", help="its error output")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until it is answered")
    _add_period(logs, 5.0)
    logs.set_defaults(shape=Logs)

    explain = verbs.add_parser(
        "explain",
        help="why has it no answer yet?",
        description="Say why jobs have no answer yet: the first reason, what shows it, and what to "
        "do. Read from what the last pass wrote down.",
    )
    explain.add_argument("jobs", metavar="JOB", nargs="+")
    explain.set_defaults(shape=Explain)

    lint = verbs.add_parser(
        "lint",
        help="check configurations, templates and job files",
        description="Check files by their ending (.ini, .template, .job); without one, the "
        "configuration and its templates.",
    )
    lint.add_argument("files", metavar="FILE", nargs="*")
    lint.set_defaults(shape=Lint)

    render = verbs.add_parser(
        "render",
        help="the script that a job would run",
        description="Print the script that a job file would run, with a sample workspace.",
    )
    render.add_argument("file", metavar="FILE", help="a job file; - reads stdin")
    render.set_defaults(shape=Render)


def _add_operator_verbs(verbs: Any) -> None:
    status = verbs.add_parser("status", help="is all well?", description="Show the service.")
    status.set_defaults(shape=Overview)

    pause = verbs.add_parser(
        "pause",
        help="carry no new jobs to the cluster for a while",
        description="Stop carrying new jobs to the cluster, until `resume` or the time given.",
    )
    pause.add_argument("reason", metavar="REASON", nargs="?", default="")
    pause.add_argument("--until", metavar="WHEN", type=moment, help="2026-11-21T06:00, or 6h")
    add_dry_run(pause)
    pause.set_defaults(shape=Pause)

    resume = verbs.add_parser("resume", help="end a pause", description="End a pause.")
    resume.add_argument(
        "--restored",
        action="store_true",
        help="make state and dropbox one again after one came back from a backup",
    )
    add_dry_run(resume)
    resume.set_defaults(shape=Resume)

    demo = verbs.add_parser(
        "demo",
        help="three jobs on this machine",
        description="Run three jobs on this machine, end to end, and show what came of them.",
    )
    demo.add_argument("--folder", metavar="FOLDER", type=Path, help="default: a new one")
    demo.add_argument("--timeout", metavar="TIME", type=duration_s, default=120.0)
    demo.set_defaults(shape=Demo)

    pass_ = verbs.add_parser(
        "pass", help="one pass, for cron", description="Run one pass, as hpc_submitter does."
    )
    add_pass_options(pass_)
    pass_.set_defaults(shape=Pass)

    config = verbs.add_parser("config", help="the configuration", description="The configuration.")
    config.add_argument(
        "what",
        metavar="show|path|sample|check",
        choices=["show", "path", "sample", "check"],
        nargs="?",
        default="show",
    )
    config.set_defaults(shape=ShowConfig)

    clean = verbs.add_parser(
        "clean",
        help="remove what is old and of no use",
        description="Remove old entries of the history, old logs, and what killed passes left in "
        "the dropbox's own folder and on the cluster. Nothing of a job without an answer is "
        "removed, and answers in the dropbox are their users'.",
    )
    clean.add_argument(
        "--older-than",
        metavar="TIME",
        type=duration,
        default=timedelta(days=14),
        help="what is at least so old (default: 14d)",
    )
    clean.add_argument(
        "--kept", action="store_true", help="also what --nocleanup kept on the cluster, when old"
    )
    add_dry_run(clean)
    clean.set_defaults(shape=Clean)
