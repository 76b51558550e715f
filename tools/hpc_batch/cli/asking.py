"""Questions to a person: on stderr, answered on stdin. Programs are never asked anything."""

from __future__ import annotations

import sys
from typing import Callable

from hpc_batch.cli import exit_codes
from hpc_batch.cli.output import CommandError, escape


def is_person() -> bool:
    """Tell whether somebody is there to answer."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm(question: str) -> bool:
    """Ask a question to which only yes means yes."""
    return _answer(f"{question} [y/N] ").lower() in ("y", "yes")


def ask(question: str, default: str, check: Callable[[str], object]) -> str:
    """Ask for a value until `check` takes it; an empty answer is the default.

    `check` raises ValueError with the second half of a sentence.
    """
    while True:
        text = _answer(f"{question} [{default}] ") or default
        try:
            check(text)
            return text
        except ValueError as error:
            sys.stderr.write(f"  it {error}\n")


def _answer(prompt: str) -> str:
    """Return what was typed. Raises CommandError at the end of the input."""
    sys.stderr.write(escape(prompt))
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise CommandError(exit_codes.USAGE, "usage", "nobody answers", "nothing was changed")
    return line.strip()
