"""The selection: which of the jobs that can be seen a person means."""

from __future__ import annotations

import difflib
import fnmatch
from typing import TYPE_CHECKING, Mapping, Sequence

if TYPE_CHECKING:
    from hpc_batch.status import Seen


class NoSuchJob(LookupError):
    """A selector names no job, or more than one; the text says which."""


def select(jobs: Sequence[Seen], selectors: Sequence[str]) -> list[Seen]:
    """Return the jobs that people name, each once, in the order they are named.

    A selector is `last` (the job that changed last), `failed` (all answered with an error), a NAME
    with or without `.job`, a pattern with `*`, `?` or `[`, an id, or the unique beginning of an id
    or of its last part. Of several jobs of one NAME the newest is meant.

    Raises NoSuchJob.
    """
    newest: dict[str, Seen] = {}
    for job in jobs:
        if not (job.answered and job.name in newest and not newest[job.name].answered):
            newest[job.name] = job
    chosen: dict[tuple[str, str | None], Seen] = {}
    for selector in selectors:
        for job in _matches(jobs, newest, selector):
            chosen[(job.name, job.id)] = job
    return list(chosen.values())


def _matches(jobs: Sequence[Seen], newest: Mapping[str, Seen], selector: str) -> list[Seen]:
    name = selector if selector.endswith(".job") else selector + ".job"
    if selector == "last" and jobs:
        return [jobs[-1]]
    if selector == "failed":
        return [job for job in newest.values() if job.state == "error"]
    if name in newest:
        return [newest[name]]
    found = [
        job
        for job in jobs
        if job.id
        and (job.id.startswith(selector) or job.id.rpartition("-")[2].startswith(selector))
    ]
    if selector and len({job.id for job in found}) == 1:
        return found[-1:]
    if len(found) > 1 and selector:
        raise NoSuchJob(f"{selector!r} begins the ids of {len(found)} jobs; type more of it")
    if any(c in selector for c in "*?["):
        return [
            job for n, job in newest.items() if fnmatch.fnmatchcase(n[: -len(".job")], selector)
        ]
    near = difflib.get_close_matches(name, newest, 1)
    meant = f"; did you mean {near[0][: -len('.job')]!r}?" if near else ""
    raise NoSuchJob(f"no job {selector!r} is known here{meant}")
