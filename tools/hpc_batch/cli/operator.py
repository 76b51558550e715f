"""Verbs for who runs the service: status, pause, resume, config, clean, demo."""

from __future__ import annotations

import contextlib
import secrets
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

from hpc_batch import config as configuration
from hpc_batch import hosts, session, tidying
from hpc_batch.amounts import amount, span
from hpc_batch.cli import exit_codes
from hpc_batch.cli.ini import load
from hpc_batch.cli.output import CommandError, Output
from hpc_batch.cli.requests import Clean, Demo, Overview, Pause, Resume, ShowConfig
from hpc_batch.cli.site import Site, site_of
from hpc_batch.config import Config
from hpc_batch.state import Busy
from hpc_batch.status import STALE, Seen, Status, next_try
from hpc_cluster import files

SHOWN = 10
"""Of jobs that are stuck, so many are named by `status`."""


TOLD = timedelta(minutes=1)
"""A pass tells every few seconds how far a transfer has come; one that was killed tells no more."""


@contextlib.contextmanager
def far_session(site: Site) -> Iterator[session.Session]:
    """Open a session with the cluster's side beside the pass, to look at a running job."""
    seen = site.look()
    if site.config is None or seen.service is None:
        text = "the configuration and the state folder are needed to look at a running job"
        hint = seen.hidden or "name the ini with -c"
        raise CommandError(exit_codes.CONFIGURATION, "config", text, hint)
    host = hosts.connect(site.config.remote)
    try:
        instance = str(seen.service["instance"])
        with session.begin(host, site.config.remote, site.config.env, instance) as opened:
            yield opened
    finally:
        host.close()


def status(request: Overview, output: Output) -> int:
    """Show how the service is: in one line when all is well."""
    seen = site_of(request).look(datetime.now(timezone.utc))
    if output.json:
        waiting = [job.document() for job in seen.jobs if job.state == "waiting"]
        content = {**(seen.service or {}), "waiting": waiting, "failed": seen.failed}
        output.document("status", content)
        return exit_codes.OK
    now = datetime.now(timezone.utc)
    troubles = list(_troubles(seen, now))
    output.line(_summary(seen, now) if troubles else f"all is well: {_summary(seen, now)}")
    for text in [*_transfers(seen, now), *troubles]:
        output.line(f"  {text}")
    return exit_codes.OK


def pause(request: Pause, output: Output) -> int:
    """Let passes take and stage nothing new, until `resume` or the time given."""
    state = load(request).cronjob.state
    document = {
        "until": _iso(request.until) if request.until else None,
        "reason": request.reason,
        "since": _iso(datetime.now(timezone.utc)),
    }
    if request.until and request.until <= datetime.now(timezone.utc):
        raise CommandError(exit_codes.USAGE, "usage", f"--until: {document['until']} is over")
    if not request.dry_run:
        files.make_folder(str(state))
        suffix = f".{secrets.token_hex(8)}"
        files.replace(str(state / "paused"), files.to_json(document), suffix)
    if output.json:
        output.document("pause", {"dry_run": request.dry_run, "paused": document})
    else:
        output.line(f"paused{_until(document)}; `hpc-batch resume` ends it")
    return exit_codes.OK


def resume(request: Resume, output: Output) -> int:
    """End a pause; with --restored, make state and dropbox one again after a restore."""
    config = load(request)
    if request.restored:
        return _restore(config, request, output)
    path = str(config.cronjob.state / "paused")
    was_paused = files.exists(path)
    if was_paused and not request.dry_run:
        files.unlink(path)
    if output.json:
        output.document("resume", {"dry_run": request.dry_run, "was_paused": was_paused})
    else:
        output.line("resumed" if was_paused else "was not paused")
    return exit_codes.OK


def show_config(request: ShowConfig, output: Output) -> int:
    """Print the configuration, its path, or a sample; or check it."""
    if request.what == "sample":
        text = configuration.sample()
        if output.json:
            output.document("config", {"sample": text})
        else:
            output.stream(text)
        return exit_codes.OK
    if request.what == "path":
        path = str(Path(configuration.find(request.config)).absolute())
        if output.json:
            output.document("config", {"path": path})
        else:
            output.line(path)
        return exit_codes.OK
    config = load(request)
    rows = configuration.masked(config)
    if output.json:
        names = ("section", "key", "value", "source")
        values = [dict(zip(names, row)) for row in rows] if request.what == "show" else None
        shown = {"values": values} if values is not None else {"problems": []}
        output.document("config", {"path": str(config.path), **shown})
    elif request.what == "show":
        output.table(("SECTION", "KEY", "VALUE", "SOURCE"), rows)
    else:
        output.line(f"{config.path}: no problems")
    return exit_codes.OK


def clean(request: Clean, output: Output) -> int:
    """Remove what is old: history, log, and what killed passes left; say what is left alone."""
    config = load(request)
    before = datetime.now(timezone.utc) - request.older_than
    try:
        found = tidying.tidy(config, before, kept=request.kept, dry_run=request.dry_run)
    except Busy:
        text = "a pass is running"
        raise CommandError(exit_codes.TEMPORARY, "busy", text, "try again later") from None
    if output.json:
        removed = [vars(item) for item in found.removed]
        content = {**vars(found), "dry_run": request.dry_run, "removed": removed}
        output.document("clean", content)
    else:
        for item in found.removed:
            output.line(f"{item.what}: {item.entries} entries, {item.bytes} bytes")
        for text in _left(found, request):
            output.talk(text)
    return exit_codes.OK if found.trouble is None else exit_codes.TEMPORARY


def _left(found: tidying.Tidied, request: Clean) -> Iterator[str]:
    """Yield what cleaning came to, and what it left alone, a sentence each."""
    if request.dry_run:
        yield "nothing was removed; what lies on the cluster is not known before it is removed"
    else:
        yield "removed" if found.removed else "nothing was removed"
    if found.trouble is not None:
        yield f"nothing was removed on the cluster: {found.trouble}; try again later"
    if found.unanswered:
        yield f"{found.unanswered} jobs without an answer were left alone, with all they have"
    if found.kept:
        more = "" if request.kept else "; `hpc-batch clean --kept` removes what is old of it"
        yield f"{found.kept} jobs' data is in kept/ on the cluster{more}"
    if found.trash:
        yield f"{found.trash} entries are left in trash/ there, for passes to delete"


def run_demo(request: Demo, output: Output) -> int:
    """Run three jobs on this machine and show what came of them."""
    from hpc_batch.demo import demo

    folder = request.folder or Path(tempfile.mkdtemp(prefix="hpc-batch-demo-"))
    shown = demo(folder.absolute(), request.timeout, output.talk)
    if output.json:
        output.document("demo", {"folder": str(folder), "jobs": [row.document() for row in shown]})
    else:
        rows = [(r.job, r.status, r.reason, r.seconds, r.message) for r in shown]
        output.table(("JOB", "STATUS", "REASON", "SECONDS", "MESSAGE"), rows)
        output.line("")
        for row in shown:
            for path in (row.answer, *row.outputs):
                output.line(str(path))
        output.talk(f"more: hpc-batch -c {folder / 'hpc_batch.ini'} list")
    return exit_codes.OK if all(row.as_meant for row in shown) else exit_codes.FAILED


# ---- parts -----------------------------------------------------------------------------------


def _restore(config: Config, request: Resume, output: Output) -> int:
    from hpc_batch.restore import restore

    if request.dry_run:
        output.talk(f"would bring {config.cronjob.state} and {config.cronjob.dropbox} together")
        done: list[str] = []
    else:
        try:
            done = restore(config)
        except Busy:
            text = "a pass is running"
            raise CommandError(exit_codes.TEMPORARY, "busy", text, "try again later") from None
    if output.json:
        output.document("resume", {"dry_run": request.dry_run, "restored": done})
    else:
        for text in done:
            output.line(text)
    return exit_codes.OK


def _summary(seen: Status, now: datetime) -> str:
    """Return everything in one line."""
    counts: dict[str, int] = {}
    for job in seen.in_flight:
        counts[job.state] = counts.get(job.state, 0) + 1
    jobs = ", ".join(f"{n} {state}" for state, n in counts.items()) or "no jobs"
    service: Mapping[str, Any] = seen.service or {}
    # Passes look after pilots while jobs need them; what they last saw of others is old.
    needed = counts.keys() - {"waiting"}
    pilots = [p for p in service.get("pilots", []) if needed and p.get("state") != "ended"]
    where = ", ".join(
        f"pilot {p.get('state')}" + (f" on {p['node']}" if p.get("node") else "") for p in pilots
    )
    age = seen.age(now)
    when = f"last pass {int(age.total_seconds())} s ago" if age is not None else "no pass yet"
    parts = (jobs, where or "no pilot", _store(service.get("store")), when)
    return "; ".join(part for part in parts if part)


def _store(store: Mapping[str, Any] | None) -> str:
    """Return what the input store holds; nothing where it is empty."""
    if not store or not store.get("bytes"):
        return ""
    limit = f" of {amount(store['limit'])}" if store.get("limit") is not None else ""
    return f"input store {amount(store['bytes'])}{limit}"


def _transfers(seen: Status, now: datetime) -> Iterator[str]:
    """Yield how far each long transfer has come, as far as a pass is telling it."""
    age = seen.age(now)
    if age is None or age > TOLD:
        return
    for one in (seen.service or {}).get("transfers", []):
        way = "to the cluster" if one["way"] == "in" else "back"
        text = f"{way}: {one['what']}, {amount(one['bytes'])} of {amount(one['of'])}"
        if one.get("rate"):
            text += f", {amount(one['rate'])}/s"
        if one.get("left_s") is not None:
            text += f", {span(one['left_s'])} left"
        yield text


def _troubles(seen: Status, now: datetime) -> Iterator[str]:
    """Yield what is not as it should be, a sentence each; what keeps most comes first."""
    service: Mapping[str, Any] = seen.service or {}
    if seen.hidden:
        yield f"{seen.hidden}: only what the dropbox shows"
    age = seen.age(now)
    if seen.failed is not None:
        failed = seen.failed
        text = str(failed.get("message")).replace("\n", "; ")
        yield f"no pass has worked since {failed.get('since')}: {text} (exit code {failed['code']})"
    elif age is not None and age > STALE:
        yield f"no pass for {span(age.total_seconds())}: is the cron line there?"
    elif seen.service is None and not seen.hidden:
        yield "no pass has run yet"
    paused = service.get("paused")
    if paused:
        reason = f": {paused['reason']}" if paused.get("reason") else ""
        yield (
            f"paused{_until(paused)} since {paused.get('since')}{reason}; "
            "new jobs wait, answers still come back; `hpc-batch resume` ends it"
        )
    cluster = service.get("cluster") or {}
    away = cluster.get("reachable") is False
    if away:
        yield (
            f"the cluster cannot be used since {cluster.get('since')}: {cluster.get('trouble')}; "
            "jobs are safe, every pass tries again"
        )
    stuck = [job for job in seen.in_flight if job.stuck]
    yield from _stuck(stuck)
    told = ("stuck ", *(f"{word} {job.id}" for job in stuck for word in ("answer", "record")))
    told += ("cluster",) if away else ()
    for trouble in service.get("trouble", []):
        if not str(trouble.get("what")).startswith(told):
            then = f"; {next_try(trouble['next'], now)}" if trouble.get("next") else ""
            yield f"since {trouble.get('since')}: {trouble.get('message')}{then}"
    for pilot in service.get("pilots", []):
        for warning in pilot.get("warnings") or []:
            yield f"pilot {pilot.get('pilot')}: {warning}"


def _stuck(jobs: Sequence[Seen]) -> Iterator[str]:
    """Yield a line for each job that is stuck, the longest first, and the number of the rest."""
    known = sorted(
        ((job.name, job.stuck) for job in jobs if job.stuck), key=lambda one: one[1]["since"]
    )
    for name, stuck in known[:SHOWN]:
        yield f"{name} is stuck since {stuck['since']}: {stuck['why']}; {stuck['next']}"
    if len(known) > SHOWN:
        yield f"and {len(known) - SHOWN} more are stuck: `hpc-batch list` shows them"


def _until(paused: Mapping[str, Any]) -> str:
    return f" until {paused['until']}" if paused.get("until") else ""


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
