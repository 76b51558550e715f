"""Verbs for who runs the service: status, pause, resume, pass, config, clean, demo."""

from __future__ import annotations

import contextlib
import secrets
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Iterator, Mapping

from hpc_batch import config as configuration
from hpc_batch import hosts, session, tidying
from hpc_batch.cli import exit_codes
from hpc_batch.cli.output import CommandError, Output
from hpc_batch.cli.requests import Clean, Demo, Overview, Pass, Pause, Resume, ShowConfig
from hpc_batch.cli.site import Site, load, site_of
from hpc_batch.config import Config
from hpc_batch.state import Busy
from hpc_batch.status import STALE, Status
from hpc_cluster import files


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


def run_pass(request: Pass, output: Output) -> int:
    """Run one pass, as cron does."""
    from hpc_batch import submitter

    options = submitter.Options(request.debug, request.nocleanup, request.email)
    return submitter.run(load(request), options)


def status(request: Overview, output: Output) -> int:
    """Show how the service is: in one line when all is well."""
    seen = site_of(request).look(datetime.now(timezone.utc))
    if output.json:
        waiting = [job.document() for job in seen.jobs if job.state == "waiting"]
        output.document("status", {**(seen.service or {}), "waiting": waiting})
        return exit_codes.OK
    now = datetime.now(timezone.utc)
    troubles = list(_troubles(seen, now))
    output.line(_summary(seen, now) if troubles else f"all is well: {_summary(seen, now)}")
    for text in troubles:
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
    """Remove what is old: history, log, and what killed passes left on the cluster."""
    config = load(request)
    before = datetime.now(timezone.utc) - request.older_than
    try:
        found = tidying.tidy(config, before, dry_run=request.dry_run)
    except Busy:
        text = "a pass is running"
        raise CommandError(exit_codes.TEMPORARY, "busy", text, "try again later") from None
    if output.json:
        content = {"dry_run": request.dry_run, "removed": [vars(item) for item in found]}
        output.document("clean", content)
    else:
        for item in found:
            output.line(f"{item.what}: {item.entries} entries, {item.bytes} bytes")
        output.talk("nothing was removed" if request.dry_run or not found else "removed")
    return exit_codes.OK


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
    return "; ".join(part for part in (jobs, where or "no pilot", when) if part)


def _troubles(seen: Status, now: datetime) -> Iterator[str]:
    """Yield what is not as it should be, a sentence each."""
    service: Mapping[str, Any] = seen.service or {}
    if seen.hidden:
        yield f"{seen.hidden}: only what the dropbox shows"
    paused = service.get("paused")
    if paused:
        yield f"paused{_until(paused)} since {paused.get('since')}: {paused.get('reason')}"
    cluster = service.get("cluster") or {}
    if cluster.get("reachable") is False:
        yield f"the cluster does not answer since {cluster.get('since')}: {cluster.get('trouble')}"
    age = seen.age(now)
    if age is not None and age > STALE:
        yield f"no pass for {age}: is the cron line there?"
    elif seen.service is None and not seen.hidden:
        yield "no pass has run yet"
    for trouble in service.get("trouble", []):
        then = f"; the next try is at {trouble['next']}" if trouble.get("next") else ""
        yield f"since {trouble.get('since')}: {trouble.get('message')}{then}"
    for pilot in service.get("pilots", []):
        for warning in pilot.get("warnings") or []:
            yield f"pilot {pilot.get('pilot')}: {warning}"


def _until(paused: Mapping[str, Any]) -> str:
    return f" until {paused['until']}" if paused.get("until") else ""


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
