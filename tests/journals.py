"""Journals, changed by hand as no pass changes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hpc_batch import journal
from hpc_batch.journal import Journal, Step


def steps(path: Path) -> dict[str, Step]:
    """Return the record and the papers of each job."""
    read = Journal(str(path)).read()
    return {job: Step(dict(record), read.papers(job)) for job, _, record in read.records()}


def jobs(path: Path) -> list[str]:
    """Return the jobs with a record; none where there is no journal."""
    return [*Journal(str(path)).read().jobs()] if path.exists() else []


def write(path: Path, found: Mapping[str, Step]) -> None:
    """Write a journal anew, of one line for each job."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(journal.line(job, step) for job, step in found.items()))


def rewrite(path: Path, change: Callable[[Any, Any], Any]) -> None:
    """Write a journal anew after `change` of each record and its papers."""
    found = steps(path)
    for step in found.values():
        change(step.record, step.papers)
    write(path, found)


def told(path: Path, before: str, after: str) -> None:
    """Replace a text in every record and all papers."""
    changed = []
    for job, step in steps(path).items():
        content = journal.line(job, step)[9:].replace(before.encode(), after.encode())
        changed.append(b"%08x %s" % (journal.checksum(content), content))
    path.write_bytes(b"".join(changed))


def spoil(path: Path, name: str, damage: str) -> None:
    """Damage a paper of the one job: "gone", "cut" (another document), or "garbage" (its line)."""
    ((job, (record, found)),) = steps(path).items()
    papers = dict(found)
    assert name in papers, papers
    if damage == "gone":
        del papers[name]
    elif damage == "cut":
        papers[name] = {"id": "0123"}
    first = journal.line(job, Step(record, papers))
    if damage == "garbage":
        first = first[:60] + b"\0\xff" * 300 + first[-20:]
    path.write_bytes(first + journal.line(job, Step(record, {})))
