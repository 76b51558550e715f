"""What the commands print: data on stdout, talk on stderr.

Data is one JSON document with `--json`; otherwise text, laid out by rich on a terminal and with
TABs between the columns where something else reads it. Names, messages and streams come from users
and from jobs, so on a terminal whatever could steer it is shown as an escape; a pipe gets the bytes
as they are, except in tables, where a line is a row.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from datetime import date
from typing import Any, Mapping, Sequence

from hpc_batch.errors import ConfigError, HpcBatchError, JobFileError


class CommandError(Exception):
    """A command cannot do what was asked; told in one sentence, with a hint."""

    def __init__(self, code: int, kind: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code, self.kind, self.hint = code, kind, hint
        self.problems: list[str] = []


def as_command_error(error: HpcBatchError) -> CommandError:
    """Return what a command tells of an error that hpc_batch reports."""
    hint = str(getattr(error, "hint", "")).rstrip(".")
    result = CommandError(error.exit_code, type(error).__name__, str(error), hint)
    if isinstance(error, (ConfigError, JobFileError)) and len(error.problems) > 1:
        result.problems = [str(problem) for problem in error.problems]
    return result


@dataclass(frozen=True)
class Output:
    """Where a command prints, and how."""

    json: bool = False
    program: str = "hpc-batch"
    """The name to speak under."""

    def document(self, verb: str, content: Mapping[str, Any]) -> None:
        """Print a JSON document of the schema `hpc_batch.VERB/1`."""
        write(
            json.dumps({"schema": f"hpc_batch.{verb}/1", **content}, indent=2, default=_text) + "\n"
        )

    def line(self, text: str) -> None:
        """Print a line of data."""
        write((escape(text) if on_terminal() else text) + "\n")

    def stream(self, text: str) -> None:
        """Print what a job wrote."""
        write(escape(text, keep="\n\t") if on_terminal() else text)

    def fields(self, pairs: Sequence[tuple[str, object]]) -> None:
        """Print names and values, one pair in a line, values that are None left out."""
        shown = [(name, value) for name, value in pairs if value is not None]
        width = max((len(name) for name, _ in shown), default=0)
        write("".join(f"{name:<{width}}  {escape(str(value))}\n" for name, value in shown))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print a table with a line of headings."""
        texts = [[escape("" if cell is None else str(cell)) for cell in row] for row in rows]
        if on_terminal():
            _rich_table(columns, texts)
        else:
            write("".join("\t".join(row) + "\n" for row in [list(columns), *texts]))

    def talk(self, text: str) -> None:
        """Print a line for a person, on stderr."""
        sys.stderr.write(escape(text, keep="\n") + "\n")
        sys.stderr.flush()

    def fail(self, error: CommandError) -> int:
        """Tell an error on stderr and return the exit code."""
        if self.json:
            told: dict[str, Any] = {"code": error.code, "kind": error.kind, "message": str(error)}
            if error.hint:
                told["hint"] = error.hint
            if error.problems:
                told["problems"] = error.problems
            sys.stderr.write(json.dumps({"error": told}) + "\n")
        else:
            for text in error.problems or [str(error)]:
                self.talk(f"{self.program}: {text}")
            if error.hint:
                self.talk(f"  {error.hint}")
        return error.code


def _text(value: object) -> str:
    """Return what JSON has no form for, such as a date that YAML made of a text."""
    return value.isoformat() if isinstance(value, date) else str(value)


def on_terminal() -> bool:
    """Tell whether stdout is a person's terminal."""
    return sys.stdout.isatty()


def write(text: str) -> None:
    """Write to stdout in UTF-8, bytes that were not UTF-8 as they were."""
    sys.stdout.flush()
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a surrogate pair, from an escape in somebody's YAML
        data = text.encode("utf-8", "backslashreplace")
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def escape(text: str, keep: str = "") -> str:
    """Return text with every character that could steer a terminal shown as an escape."""
    return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def silence() -> None:
    """Let the interpreter's last flush go nowhere: the reader of our pipe is gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
    sys.stdout.flush()
    Console(soft_wrap=False).print(table)


STYLES = {"ok": "green", "error": "red", "running": "cyan"}
"""How single words stand out in a table on a terminal."""
