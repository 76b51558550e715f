"""The verb cron: show, install, remove the line for a configuration."""

from __future__ import annotations

import difflib

from hpc_batch import crontab
from hpc_batch.cli import exit_codes
from hpc_batch.cli.asking import confirm, is_person
from hpc_batch.cli.ini import load
from hpc_batch.cli.output import CommandError, Output
from hpc_batch.cli.requests import Cron
from hpc_batch.errors import ConfigError


def cron(request: Cron, output: Output) -> int:
    """Show the cron line, or keep it as asked; what changes is shown first."""
    path = load(request).path
    wanted = crontab.line(path, request.every)
    try:
        before = crontab.read()
        after = before
        if request.what == "install":
            after = crontab.with_block(before, path, wanted)
        elif request.what == "remove":
            after = crontab.without_block(before, path)
        there = crontab.installed(before, path)
    except ConfigError as error:
        hint = f"the line for who may install it: {wanted}" if request.what == "install" else ""
        raise CommandError(exit_codes.CONFIGURATION, "crontab", str(error), hint) from None
    if request.what == "show":
        return _show(there, wanted, output)
    changed = after != before
    if changed:
        output.talk("".join(_difference(before, after)).rstrip("\n"))
        _warn(request, before, output, by_hand=there is None and crontab.mentioned(before, path))
    write = changed and not request.dry_run
    if write and not request.yes and is_person() and not confirm("Change the crontab?"):
        write = False
    if write:
        crontab.write(after)
    word = _word(request, changed=changed, written=write)
    if output.json:
        line = crontab.installed(after, path)
        content = {"dry_run": request.dry_run, "changed": write, "line": line}
        output.document("cron", content)
    else:
        output.line(word)
    return exit_codes.OK


def _show(there: str | None, wanted: str, output: Output) -> int:
    if output.json:
        output.document("cron", {"line": there, "would_be": wanted})
    elif there is None:
        output.talk(f"not installed; `hpc-batch cron install` would add: {wanted}")
    else:
        output.line(there)
    return exit_codes.OK


def _warn(request: Cron, before: str, output: Output, *, by_hand: bool) -> None:
    if by_hand and request.what == "install":
        output.talk("another line of the crontab names this configuration; remove it by hand")


def _difference(before: str, after: str) -> list[str]:
    return list(
        difflib.unified_diff(
            before.splitlines(keepends=True),
            after.splitlines(keepends=True),
            "crontab (now)",
            "crontab (after)",
            n=1,
        )
    )


def _word(request: Cron, *, changed: bool, written: bool) -> str:
    if not changed:
        return "is installed already" if request.what == "install" else "is not installed"
    if not written:
        return f"would be {request.what}{'ed' if request.what == 'install' else 'd'}"
    return "installed" if request.what == "install" else "removed"
