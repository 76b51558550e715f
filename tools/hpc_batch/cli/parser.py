"""argparse as every command line of ours uses it, and the one of `hpc_submitter`.

cron starts a pass each minute; it loads none of the verbs of `hpc-batch` (`arguments`).
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any, NoReturn, Sequence

import hpc_cluster
from hpc_batch.cli import exit_codes
from hpc_batch.cli.output import CommandError
from hpc_batch.cli.request import Pass


def parse_submitter(argv: Sequence[str]) -> Pass:
    """Return what was typed to `hpc_submitter`, the original's command line."""
    parser = Parser(
        prog="hpc_submitter",
        description="Run one pass: carry new jobs to the cluster and answers back. For cron.",
    )
    parser.add_argument("--debug", action="store_true", help="log to stderr what is done")
    add_pass_options(parser)
    parser.add_argument(
        "config", metavar="CONFIG", type=Path, help="the configuration, an ini file"
    )
    parser.add_argument("--version", action="version", version=version())
    namespace = parser.parse_args(list(argv))
    return Pass(
        config=namespace.config,
        dropbox=None,
        json=False,
        debug=namespace.debug,
        nocleanup=namespace.nocleanup,
        email=namespace.email,
    )


def version() -> str:
    """Return what --version prints."""
    return f"hpc-batch {hpc_cluster.VERSION} (protocol {hpc_cluster.PROTOCOL})"


class Parser(argparse.ArgumentParser):
    """argparse whose errors are ours: one sentence, a hint, `did you mean`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options
        )

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the command line as a CommandError."""
        hint = f"`{self.prog} --help` tells more"
        wrong = re.search(r"invalid choice: (['\"])(.*?)\1 \(choose from (.*)\)", message)
        if wrong:
            import difflib

            choices = re.findall(r"[a-z][a-z_-]*", wrong[3])
            near = difflib.get_close_matches(wrong[2], choices, 1)
            message = f"{message.split(':')[0].removeprefix('argument ')}: {wrong[2]!r} is unknown"
            if near:
                message, hint = f"{message}; did you mean {near[0]}?", hint
            else:
                message += f"; known are {', '.join(choices)}"
        raise CommandError(exit_codes.USAGE, "usage", message, hint)


def add_pass_options(parser: argparse.ArgumentParser) -> None:
    """Add what `hpc-batch pass` takes as well."""
    parser.add_argument(
        "--nocleanup", action="store_true", help="keep the jobs' data on the cluster, in kept/"
    )
    parser.add_argument(
        "--email", metavar="ADDR", help="let the batch system mail about pilots to this address"
    )
