"""Journals of jobs, changed by hand as no pass changes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hpc_batch import journal


def rewrite(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> None:
    """Write a journal anew, of one line, after `change` of its record and its papers."""
    record, papers = dict(journal.record_in(str(path))), journal.papers_in(str(path))
    change(record, papers)
    path.write_bytes(journal.line(record, papers))


def told(path: Path, before: str, after: str) -> None:
    """Replace a text in the record and the papers of a journal."""
    record, papers = journal.record_in(str(path)), journal.papers_in(str(path))
    content = journal.line(record, papers)[9:].replace(before.encode(), after.encode())
    path.write_bytes(b"%08x %s" % (journal.checksum(content), content))


def begin(path: Path, record: Mapping[str, Any]) -> None:
    """Make a journal of one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(journal.line(record, {}))


def spoil(path: Path, name: str, damage: str) -> None:
    """Damage a paper: "gone", "cut" (another document), or "garbage" (its line is overwritten)."""
    record, papers = journal.record_in(str(path)), journal.papers_in(str(path))
    assert name in papers, papers
    if damage == "gone":
        del papers[name]
    elif damage == "cut":
        papers[name] = {"id": "0123"}
    first = journal.line(record, papers)
    if damage == "garbage":
        first = first[:20] + b"\0\xff" * 300 + first[-20:]
    path.write_bytes(first + journal.line(record, {}))
