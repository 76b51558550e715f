"""The verb pilot: show, submit, cancel."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from hpc_batch import hosts, session
from hpc_batch.cli import exit_codes
from hpc_batch.cli.asking import confirm, is_person
from hpc_batch.cli.ini import load
from hpc_batch.cli.output import CommandError, Output
from hpc_batch.cli.requests import Pilots
from hpc_batch.cli.site import site_of
from hpc_batch.config import Config
from hpc_batch.policy import policy
from hpc_batch.session import Session

NOBODY = "00000000"
"""The instance of a service host that has not run a pass yet; pilots belong to the workspace."""

COLUMNS = (
    "PILOT",
    "NATIVE ID",
    "SLOT",
    "STATE",
    "NODE",
    "SINCE",
    "ENDS",
    "JOBS",
    "CLAIMED",
    "REASON",
)


def pilot(request: Pilots, output: Output) -> int:
    """Show the pilots, submit one, or cancel some."""
    if request.pilots and request.what != "cancel":
        raise CommandError(exit_codes.USAGE, "usage", f"pilot {request.what} takes no PILOT")
    act = {"show": _show, "submit": _submit, "cancel": _cancel}[request.what]
    config = load(request)
    with _far_session(request, config) as opened:
        return act(request, config, opened, output)


@contextlib.contextmanager
def _far_session(request: Pilots, config: Config) -> Iterator[Session]:
    service = site_of(request).look().service or {}
    host = hosts.connect(config.remote)
    try:
        instance = str(service.get("instance") or NOBODY)
        with session.begin(host, config.remote, config.env, instance) as opened:
            yield opened
    finally:
        host.close()


def _show(request: Pilots, config: Config, opened: Session, output: Output) -> int:
    seen = opened.pilots(policy(config, submit=False))
    if output.json:
        output.document("pilot", {"pilots": list(seen.pilots), "trouble": seen.trouble})
        return exit_codes.OK
    if seen.pilots:
        output.table(COLUMNS, [_row(dict(one)) for one in seen.pilots])
    else:
        output.talk("there is no pilot")
    if seen.trouble:
        output.talk(
            f"since {seen.trouble['since']}: {seen.trouble['message']}; "
            f"the next pilot is submitted after {seen.trouble['next']}"
        )
    return exit_codes.OK


def _submit(request: Pilots, config: Config, opened: Session, output: Output) -> int:
    before = opened.pilots(policy(config, submit=False))
    if request.dry_run:
        fits = len(before.pilots) < config.pilot.max
        word = "would submit a pilot" if fits else "would submit none"
        if output.json:
            output.document("pilot", {"dry_run": True, "pilot": None, "message": None})
        else:
            output.line(f"{word}: {len(before.pilots)} of {config.pilot.max} are there")
        return exit_codes.OK if fits else exit_codes.FAILED
    made = opened.submit(policy(config, submit=True), secrets.token_hex(8))
    if output.json:
        content = {"dry_run": False, "pilot": made.pilot, "message": made.message}
        output.document("pilot", content)
    elif made.message is None and made.pilot is not None:
        output.line(str(made.pilot.get("native_id") or made.pilot["pilot"]))
    if made.message is not None:
        text = f"no pilot was submitted: {made.message}"
        if made.pilot is None:
            text += f"; [pilot] max = {config.pilot.max}"
        raise CommandError(exit_codes.FAILED, "pilot", text)
    if made.pilot is not None and made.pilot.get("reason"):
        output.talk(f"it is not clear whether it was submitted: {made.pilot['reason']}")
    return exit_codes.OK


def _cancel(request: Pilots, config: Config, opened: Session, output: Output) -> int:
    living = [dict(one) for one in opened.pilots(policy(config, submit=False)).pilots]
    chosen = _chosen(request, living)
    jobs = sum(len(one.get("running") or ()) for one in chosen)
    if not chosen or request.dry_run:
        output.talk("would cancel these" if chosen else "there is no pilot")
        return _tell(output, request, chosen, {})
    if not request.yes:
        if not is_person():
            raise CommandError(exit_codes.USAGE, "usage", "give --yes: nobody is there to be asked")
        for one in chosen:
            output.talk("  ".join(str(cell) for cell in _row(one) if cell not in (None, "")))
        if not confirm(f"Cancel {len(chosen)} pilots? The {jobs} jobs on them start again later."):
            output.talk("nothing was cancelled")
            return exit_codes.OK
    answers = opened.dismiss([str(one["pilot"]) for one in chosen])
    opened.pilots(policy(config, submit=False))
    output.talk("while jobs are waiting, the next pass submits a pilot, unless `hpc-batch pause`")
    return _tell(output, request, chosen, answers)


def _chosen(request: Pilots, living: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the pilots that are meant. Raises CommandError for a name that means none."""
    if not request.pilots:
        return living
    chosen = []
    for word in request.pilots:
        names = [p for p in living if word == p.get("native_id") or p["pilot"].startswith(word)]
        if len(names) != 1:
            text = f"{word!r} means {len(names)} of the pilots that live"
            raise CommandError(exit_codes.FAILED, "no_such_pilot", text, "`hpc-batch pilot show`")
        chosen += [one for one in names if one not in chosen]
    return chosen


def _tell(
    output: Output, request: Pilots, chosen: list[dict[str, Any]], answers: dict[str, str]
) -> int:
    rows = [
        {
            "pilot": one["pilot"],
            "native_id": one.get("native_id"),
            "answer": answers.get(one["pilot"]),
        }
        for one in chosen
    ]
    if output.json:
        output.document("pilot", {"dry_run": request.dry_run, "pilots": rows})
    else:
        for row in rows:
            output.line(f"{row['native_id'] or row['pilot']}: {row['answer'] or 'to be cancelled'}")
    fine = all(word in ("asked", "gone") for word in answers.values())
    return exit_codes.OK if fine else exit_codes.FAILED


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    end = one.get("end_of_walltime")
    ends = datetime.fromtimestamp(end, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ") if end else ""
    return (
        one["pilot"],
        one.get("native_id"),
        one.get("slot"),
        one.get("state"),
        one.get("node"),
        one.get("since"),
        ends,
        len(one.get("running") or ()),
        one.get("claimed"),
        "cancelled" if one.get("dismissed") else one.get("trouble") or one.get("reason"),
    )
