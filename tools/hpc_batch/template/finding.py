"""One thing to say about a template: an error that stops a job, or advice for its author."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Iterable, Literal

from hpc_batch.errors import Problem

Severity = Literal["error", "advice"]


@dataclass(frozen=True)
class Finding(Problem):
    """A problem of a template's line. Only errors are ever raised."""

    template: str = ""
    """The script's name, without `.template`."""
    severity: Severity = "error"

    def __str__(self) -> str:
        where = f"{self.template}.template"
        return f"{where}, line {self.line}: {self.text}" if self.line else f"{where}: {self.text}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean …?` with the nearest known word, or nothing."""
    near = get_close_matches(word, sorted(set(known)), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""
