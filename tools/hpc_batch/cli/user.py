"""Verbs that do something about jobs: submit, run, wait, check, cancel, retry."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping

from hpc_batch import jobfile
from hpc_batch.cli import exit_codes
from hpc_batch.cli.checking import check_drop, of_problem
from hpc_batch.cli.output import CommandError, Output
from hpc_batch.cli.requests import Cancel, Check, Dropped, Retry, Run, Submit, Wait
from hpc_batch.cli.site import Site, site_of
from hpc_batch.client import Dropbox, Job, as_completed, fresh_name, job_mapping
from hpc_batch.config import Config
from hpc_batch.dropbox_files import is_there
from hpc_batch.errors import HpcBatchError, JobFileError
from hpc_cluster import files

ASKED = ".asked"
"""Ending of the dot file that remembers a job of `run --lwlw` beyond its other files."""


@dataclass(frozen=True)
class Ready:
    """A job file that is about to be dropped."""

    name: str
    text: bytes
    source: str
    """What to call it in an error."""


def submit(request: Submit, output: Output) -> int:
    """Check jobs, then drop them all; with one bad among them, none."""
    site = site_of(request)
    ready = _prepared(request, site.config)
    if request.dry_run:
        output.talk("nothing was dropped")
    else:
        for drop in ready:
            _drop(site.dropbox, drop)
            if is_there(site.dropbox.job(drop.name).submitted_path):
                output.talk(f"{_job_name(drop.name)}: waits until the job of that name is answered")
    if output.json:
        jobs = [{"name": _job_name(d.name), "path": str(_path(site, d))} for d in ready]
        output.document("submit", {"dropped": not request.dry_run, "jobs": jobs})
    else:
        for drop in ready:
            output.line(_job_name(drop.name))
    return exit_codes.OK


def run(request: Run, output: Output) -> int:
    """Drop a job and wait for its answer, or with --lwlw submit or check without waiting."""
    site = site_of(request)
    if request.lwlw:
        return _submit_or_check(request, site, output)
    drop = _one(_prepared(request, site.config))
    if request.dry_run:
        output.talk("nothing was dropped")
        return exit_codes.OK
    job = site.dropbox.job(drop.name)
    if is_there(job.submitted_path):
        raise CommandError(
            exit_codes.TEMPORARY,
            "in_flight",
            f"a job {job.name} is in flight",
            f"wait for it with `hpc-batch wait {job.name}`, or give this one another --name",
        )
    if not is_there(job.path):
        site.dropbox.set_aside(job.name)
    _drop(site.dropbox, drop)
    if not job.wait(request.timeout, request.period):
        raise _timeout([job.name], request.timeout)
    return _tell_answer("run", job, output)


def wait(request: Wait, output: Output) -> int:
    """Wait for answers and tell each as it comes."""
    site = site_of(request)
    found = site.find(request.jobs)
    jobs = [site.dropbox.job(seen.name) for seen in found if not seen.answered]
    told: list[dict[str, Any]] = [
        {"name": seen.name, "status": seen.state, "message": seen.message}
        for seen in found
        if seen.answered
    ]
    for item in told:
        _tell_line(item, output)
    waiting = {job.name for job in jobs}
    try:
        for job in as_completed(jobs, request.timeout, request.period):
            waiting.discard(job.name)
            node = _job_node(job)
            told.append(
                {"name": job.name, "status": node.get("status"), "message": node.get("message")}
            )
            _tell_line(told[-1], output)
    except TimeoutError:
        raise _timeout(sorted(waiting), request.timeout) from None
    if output.json:
        output.document("wait", {"jobs": told})
    return exit_codes.OK if all(t["status"] == "ok" for t in told) else exit_codes.FAILED


def check(request: Check, output: Output) -> int:
    """Tell by the exit code whether a job is done: 0 ok, 1 failed, 255 waiting."""
    found = site_of(request).find((request.job,))
    if len(found) != 1:
        text = f"{request.job!r} means {len(found)} jobs; check looks at one"
        raise CommandError(exit_codes.USAGE, "usage", text)
    seen = found[0]
    if output.json:
        output.document("check", seen.document())
    else:
        output.line(f"{seen.name}: {seen.state}" + (f": {seen.message}" if seen.message else ""))
    if not seen.answered:
        return exit_codes.STILL_WAITING
    return exit_codes.OK if seen.state == "ok" else exit_codes.FAILED


def cancel(request: Cancel, output: Output) -> int:
    """Ask for jobs to be cancelled, by a file NAME.job.cancel each."""
    site = site_of(request)
    done: list[dict[str, Any]] = []
    for seen in site.find(request.jobs):
        asked = not seen.answered
        if asked and not request.dry_run:
            asked = site.dropbox.job(seen.name).cancel()
        done.append({"name": seen.name, "asked": asked})
    return _tell_done("cancel", "asked", done, request.dry_run, output)


def retry(request: Retry, output: Output) -> int:
    """Turn answers back into drops."""
    site = site_of(request)
    done: list[dict[str, Any]] = []
    for seen in site.find(request.jobs):
        job = site.dropbox.job(seen.name)
        why = None
        if not seen.answered or is_there(job.path) or is_there(job.submitted_path):
            why = "is in flight"
        elif not is_there(job.answer_path):
            why = "has an answer that was removed; submit it again"
        elif not request.dry_run:
            try:
                job.retry()
            except (FileExistsError, FileNotFoundError):
                why = "is in flight"  # RACE: somebody else dropped it again.
            except ValueError as error:
                why = f"cannot be retried: {error}"
        done.append({"name": seen.name, "dropped": why is None, "why": why})
    return _tell_done("retry", "dropped", done, request.dry_run, output)


# ---- dropping --------------------------------------------------------------------------------


def _prepared(request: Dropped, config: Config | None) -> list[Ready]:
    """Return what is to be dropped, all of it checked. Raises CommandError with every problem."""
    if bool(request.script) == bool(request.files):
        text = "name job files, or put a job together with --script"
        raise CommandError(exit_codes.USAGE, "usage", text)
    ready = [_read(file, request) for file in request.files]
    if request.script:
        ready.append(_from_options(request))
    if request.name is not None and len(ready) > 1:
        raise CommandError(exit_codes.USAGE, "usage", "--name is for one job")
    problems: list[str] = []
    code = exit_codes.BAD_JOB_FILE
    for drop in ready:
        try:
            check_drop(drop.name, drop.text, config)
        except JobFileError as error:
            problems += [str(of_problem(drop.source, "job", p)) for p in error.problems]
        except HpcBatchError as error:
            code = error.exit_code
            problems.append(f"{drop.source}: {error}")
    if problems:
        failure = CommandError(code, "job_file", "; ".join(problems), "nothing was dropped")
        failure.problems = problems
        raise failure
    return ready


def _from_options(request: Dropped) -> Ready:
    script = request.script or ""
    args: dict[str, Any] = {}
    for key, value in request.args:
        if key not in args:
            args[key] = value
        elif isinstance(args[key], list):
            args[key].append(value)
        else:
            args[key] = [args[key], value]
    mapping = job_mapping(script, args, dict(request.inputs), dict(request.outputs))
    return Ready(
        request.name or fresh_name(script), jobfile.dump_job(mapping), f"--script {script}"
    )


def _read(path: str, request: Dropped) -> Ready:
    if path == "-":
        data = sys.stdin.buffer.read(jobfile.JOB_BYTES + 1)
        return Ready(request.name or fresh_name("stdin"), with_end_mark(data), "stdin")
    try:
        with open(path, "rb") as file:
            data = file.read(jobfile.JOB_BYTES + 1)
    except OSError as error:
        what = (error.strerror or str(error)).lower()
        raise CommandError(exit_codes.NO_INPUT, "no_input", f"{path}: {what}") from None
    name = request.name or Path(path).name
    return Ready(name, with_end_mark(data), path)


def with_end_mark(data: bytes) -> bytes:
    """Return a job file that says it is complete, so that it is taken at once.

    A file without a last newline stays as it is: one more could change the text of its last value.
    """
    if data.endswith(b"\n") and jobfile.settled(data) == "mapping":
        return data + b"...\n"
    return data


def _drop(dropbox: Dropbox, drop: Ready) -> Job:
    try:
        return dropbox.drop(drop.name, drop.text)
    except FileExistsError:
        raise CommandError(
            exit_codes.TEMPORARY,
            "exists",
            f"{_job_name(drop.name)} waits in the dropbox already",
            "give this one another --name",
        ) from None
    except ValueError as error:
        raise CommandError(exit_codes.USAGE, "usage", str(error)) from None


def _one(ready: list[Ready]) -> Ready:
    if len(ready) != 1:
        raise CommandError(exit_codes.USAGE, "usage", "run takes one job")
    return ready[0]


def _job_name(name: str) -> str:
    return name if name.endswith(".job") else name + ".job"


def _path(site: Site, drop: Ready) -> Path:
    return site.dropbox.job(drop.name).path


# ---- run --lwlw ------------------------------------------------------------------------------


def _submit_or_check(request: Run, site: Site, output: Output) -> int:
    """Submit a job unless it was submitted under this name before; tell how it stands.

    The same call again and again drops the job once. While it is being taken a job shows none of
    its files, so a dot file of ours remembers it until the answer has been told.
    """
    job = site.dropbox.job(_persistent_name(request))
    memory = str(job.path.with_name(f".{job.name}{ASKED}"))
    if job.done():
        if not request.dry_run:
            files.unlink(memory)
        return _tell_answer("run", job, output)
    state, remembered = job.state(), files.exists(memory)
    if state == "unknown" and not remembered:
        drop = _one(_prepared(request, site.config))
        if not request.dry_run:
            try:
                site.dropbox.drop(job.name, drop.text)
            except FileExistsError:
                pass  # RACE: the same call, at the same moment.
            files.write_new(memory, b"")
        state = "dropped"
    elif not remembered and not request.dry_run:
        files.write_new(memory, b"")
    if output.json:
        output.document("run", {"name": job.name, "state": state, "answer": None})
    elif state == "unknown":
        output.talk(f"{job.name}: is being taken; if it was removed, remove {memory} too")
    else:
        output.talk(f"{job.name}: {state}")
    return exit_codes.STILL_WAITING


def _persistent_name(request: Run) -> str:
    """Return the name by which the next call finds this job again."""
    if request.name is not None:
        return request.name
    if len(request.files) == 1 and request.files[0] != "-":
        return Path(request.files[0]).name
    text = "--lwlw finds the job again by its name: give it one with --name"
    raise CommandError(exit_codes.USAGE, "usage", text)


# ---- telling ---------------------------------------------------------------------------------


def _job_node(job: Job) -> Mapping[str, Any]:
    answer = job.answer() or {}
    node = answer.get("job")
    return node if isinstance(node, Mapping) else {}


def _tell_answer(verb: str, job: Job, output: Output) -> int:
    """Print an answer and return the code that it means."""
    node = _job_node(job)
    if output.json:
        content = {"name": job.name, "state": node.get("status"), "answer": job.answer()}
        output.document(verb, content)
    else:
        output.line(f"{job.name}: {node.get('status')}: {node.get('message')}")
    return exit_codes.OK if node.get("status") == "ok" else exit_codes.FAILED


def _tell_line(told: Mapping[str, Any], output: Output) -> None:
    if not output.json:
        output.line(f"{told['name']}: {told['status']}: {told['message']}")


def _tell_done(
    verb: str, key: str, done: list[dict[str, Any]], dry_run: bool, output: Output
) -> int:
    """Print what was done to each job; code 1 when it could not be done to one of them."""
    if output.json:
        output.document(verb, {"dry_run": dry_run, "jobs": done})
    else:
        for item in done:
            if item[key]:
                output.line(item["name"])
            else:
                output.talk(f"{item['name']}: {item.get('why') or 'is answered already'}")
    if dry_run:
        output.talk("nothing was changed")
    return exit_codes.OK if all(item[key] for item in done) else exit_codes.FAILED


def _timeout(names: list[str], timeout: float | None) -> CommandError:
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return CommandError(
        exit_codes.TEMPORARY,
        "timeout",
        f"not answered within {timeout:g} s: {shown}",
        "it goes on by itself: `hpc-batch wait` waits again, `hpc-batch cancel` ends it",
    )
