"""Verbs that look at jobs: list, show, logs."""

from __future__ import annotations

import contextlib
import time
from datetime import datetime, timedelta, timezone
from typing import Any, Mapping

from hpc_batch import status
from hpc_batch.cli import exit_codes
from hpc_batch.cli.operator import far_session
from hpc_batch.cli.output import CommandError, Output
from hpc_batch.cli.requests import List, Logs, Show
from hpc_batch.cli.site import Site, site_of
from hpc_batch.session import Session
from hpc_batch.status import IN_FLIGHT, Seen, moment

GROUPS = {"failed": ("error",), "active": IN_FLIGHT}
"""Words for several states, or a second word for one."""

TAIL_BYTES = 1 << 20
"""Of a running job's stream at most so much of its end is asked for at a time."""


def list_jobs(request: List, output: Output) -> int:
    """List the jobs in flight and the answers of late."""
    now = datetime.now(timezone.utc)
    seen = site_of(request).look(None if request.all else now - request.since)
    wanted = {state for word in request.states for state in GROUPS.get(word, (word,))}
    jobs = [job for job in seen.jobs if not wanted or job.state in wanted]
    if output.json:
        output.document("list", {"jobs": [job.document() for job in jobs]})
    else:
        rows = [
            (_stem(job), job.state, ago(job.since, now), job.script, job.short_id, _why(job))
            for job in jobs
        ]
        output.table(("JOB", "STATE", "SINCE", "SCRIPT", "ID", "WHY"), rows)
    if seen.hidden:
        output.talk(f"{seen.hidden}: only what the dropbox shows")
    return exit_codes.OK


def show(request: Show, output: Output) -> int:
    """Show everything that is known about jobs."""
    site = site_of(request)
    found = [(job, answer_of(site, job)) for job in site.find(request.jobs)]
    if output.json:
        documents = [{**job.document(), "answer": answer} for job, answer in found]
        output.document("show", {"jobs": documents})
        return exit_codes.OK
    for number, (job, answer) in enumerate(found):
        if number:
            output.line("")
        output.fields(_fields(job, answer))
    return exit_codes.OK


def logs(request: Logs, output: Output) -> int:
    """Print what a job wrote: from its answer, or of a running one from the cluster."""
    site = site_of(request)
    found = site.find((request.job,))
    if len(found) != 1:
        text = f"{request.job!r} means {len(found)} jobs; logs prints one"
        raise CommandError(exit_codes.USAGE, "usage", text)
    job, key = found[0], "stderr" if request.stderr else "stdout"
    if output.json and not request.follow:
        _log_document(site, job, key, output)
    elif job.answered:
        output.stream(_answered_stream(site, job, key))
    elif request.follow:
        _follow(site, job, key, request.period, output)
    else:
        output.stream(_text(_running_stream(site, job, key, output)))
    return exit_codes.OK


def answer_of(site: Site, job: Seen) -> dict[str, Any] | None:
    """Return a job's answer if it still lies in the dropbox, aside for a later job or not."""
    if not job.answered:
        return None
    path = site.dropbox.job(job.name).answer_path
    for candidate in [path, *sorted(path.parent.glob(_literally(path.name) + ".[0-9]*"))]:
        answer = status.read_answer(candidate)
        node = (answer or {}).get("job")
        if isinstance(node, Mapping) and (job.id is None or node.get("id") == job.id):
            return answer
    return None


def ago(text: str | None, now: datetime) -> str:
    """Return how long ago a moment was, in one number and unit."""
    when = moment(text)
    if when is None:
        return ""
    seconds = max(0, int((now - when) / timedelta(seconds=1)))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _fields(job: Seen, answer: Mapping[str, Any] | None) -> list[tuple[str, object]]:
    node = (answer or {}).get("job") or {}
    outputs = node.get("outputs") or {}
    pairs: list[tuple[str, object]] = [
        ("name", job.name),
        ("id", job.id),
        ("script", job.script),
        ("state", job.state + (" (asked to cancel)" if job.cancel else "")),
        ("since", job.since),
        ("reason", job.reason),
        ("message", job.message),
        ("stuck", _stuck(job)),
        ("rc", job.rc),
        ("attempts", job.attempts),
        ("node", job.node),
        ("pilot", job.pilot),
        ("native id", job.native_id),
    ]
    pairs += [(name, job.times[name]) for name in TIMES if job.times.get(name)]
    for key, path in ((answer or {}).get("output_map") or {}).items():
        size = (outputs.get(key) or {}).get("size")
        pairs.append((f"output {key}", path if size is None else f"{path} ({size} bytes)"))
    return pairs


TIMES = ("dropped", "accepted", "staged", "started", "ended", "returned")


def _stem(job: Seen) -> str:
    return job.name[: -len(".job")]


def _why(job: Seen) -> str:
    if job.state == "error":
        return f"{job.reason}: {(job.message or '').splitlines()[0] if job.message else ''}"
    words = ["asked to cancel"] if job.cancel else []
    if job.stuck:
        words.append(_stuck(job) or "")
    elif job.message and not job.answered:
        words.append(job.message)
    if job.node and job.state == "running":
        words.append(f"on {job.node}")
    return ", ".join(words)


def _stuck(job: Seen) -> str | None:
    """Return what a job is stuck on, since when, and what comes of it."""
    stuck = job.stuck
    if stuck is None:
        return None
    return f"stuck since {stuck['since']}: {stuck['why']}; {stuck['next']}"


def _literally(name: str) -> str:
    """Return a pattern that only this name matches."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


# ---- streams ---------------------------------------------------------------------------------


def _answered_stream(site: Site, job: Seen, key: str) -> str:
    answer = answer_of(site, job)
    if answer is None:
        text = f"the answer of {job.name} was removed, and its {key} with it"
        raise CommandError(exit_codes.FAILED, "no_answer", text)
    return str(answer["job"].get(key) or "")


def _running_stream(site: Site, job: Seen, key: str, output: Output) -> bytes:
    """Return the end of a running job's stream; tell when the job does not run."""
    if job.state != "running" or job.id is None:
        output.talk(f"{job.name} is {job.state}; nothing that it wrote can be seen yet")
        return b""
    with far_session(site) as session:
        return session.tail(job.id, key, TAIL_BYTES).text


def _log_document(site: Site, job: Seen, key: str, output: Output) -> None:
    if job.answered:
        text = _answered_stream(site, job, key)
    else:
        text = _text(_running_stream(site, job, key, output))
    output.document("logs", {"name": job.name, "state": job.state, "stream": key, "text": text})


def _follow(site: Site, job: Seen, key: str, period: float, output: Output) -> None:
    """Print a stream as it grows, until the job is answered; one login for all of it."""
    shown, told, written, attempt = "", "", 0, 0
    with contextlib.ExitStack() as stack:
        session: Session | None = None
        while True:
            now = next((s for s in site.look().jobs if job.id and s.id == job.id), job)
            if now.answered:
                break
            if now.state == "running" and now.id is not None:
                if session is None:
                    session = stack.enter_context(far_session(site))
                tail = session.tail(now.id, key, TAIL_BYTES)
                if tail.attempt < attempt or (tail.attempt == attempt and tail.size < written):
                    # RACE: its files are just being removed; the next look finds the answer.
                    time.sleep(period)
                    continue
                if tail.attempt != attempt:
                    shown, written, attempt = "", 0, tail.attempt
                fresh = tail.text[max(0, len(tail.text) - (tail.size - written)) :]
                if tail.size - written > len(fresh):
                    output.talk(f"({tail.size - written - len(fresh)} bytes are left out)")
                output.stream(_text(fresh))
                shown, written = shown + _text(fresh), tail.size
            elif now.state != told:
                output.talk(f"{job.name} is {now.state}")
                told = now.state
            time.sleep(period)
    whole = _answered_stream(site, now, key)
    if whole.startswith(shown):
        output.stream(whole[len(shown) :])
    else:
        output.talk(f"{job.name} is answered; `hpc-batch logs {job.name}` prints the whole")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
