"""Checks of the service host: configuration, dropbox, state, templates, cron line."""

from __future__ import annotations

import os
import secrets
import stat
from datetime import datetime, timezone
from pathlib import Path

from hpc_batch import config as configuration
from hpc_batch import crontab, status, template
from hpc_batch.config import network_file_system
from hpc_batch.doctor.checks import Check, Subject, Verdict
from hpc_batch.errors import ConfigError, HpcBatchError
from hpc_batch.template.syntax import syntax_check
from hpc_cluster import files


def check_config(subject: Subject) -> Verdict:
    """Load the configuration."""
    path = configuration.find(subject.path)
    if not path.exists():
        return Verdict("error", f"{path} is not there", f"`hpc-batch -c {path} init` makes one")
    chosen = configuration.load(path)
    subject.known["config"] = chosen
    mode = stat.S_IMODE(chosen.path.stat().st_mode)
    return Verdict("ok", f"{chosen.path}, mode {mode:04o}, no problems")


def check_dropbox(subject: Subject) -> Verdict:
    """Write to the dropbox, rename in it, and look at where the state is."""
    dropbox, state = subject.config.cronjob.dropbox, subject.config.cronjob.state
    if not dropbox.is_dir():
        return Verdict("error", f"{dropbox} is no folder", f"mkdir -p {dropbox}")
    try:
        _try(dropbox)
    except OSError as error:
        what = (error.strerror or str(error)).lower()
        fix = f"give the account that runs the passes the right to write to {dropbox}"
        return Verdict("error", f"{dropbox} cannot be written: {what}", fix)
    kind = network_file_system(state if state.exists() else state.parent)
    if kind is not None:
        return Verdict(
            "error",
            f"the state folder {state} lies on a network file system ({kind})",
            "set [cronjob] state to a folder on a local disk",
        )
    place = state if state.exists() else state.parent
    if not os.access(place, os.W_OK | os.X_OK):
        what = "cannot be written" if state.exists() else "cannot be made"
        return Verdict(
            "error", f"the state folder {state} {what}", "set [cronjob] state to one of your own"
        )
    if state.exists() and state.stat().st_mode & 0o077:
        return Verdict("error", f"the state folder {state} is not private", f"chmod 700 {state}")
    mode = stat.S_IMODE(dropbox.stat().st_mode)
    return Verdict("ok", f"{dropbox}, mode {mode:04o}; state {state}")


def check_templates(subject: Subject) -> Verdict:
    """Lint every template."""
    folder = subject.config.cronjob.templates
    found = sorted(folder.glob("*.template"))
    if not found:
        return Verdict(
            "warning", f"{folder} holds no template", "write one: docs/how-to/write-a-template.md"
        )
    trusted = frozenset(template.SITE_NAMES | subject.config.env.keys())
    wrong = [path.stem for path in found if _is_wrong(path, trusted)]
    if wrong:
        return Verdict(
            "error",
            f"{len(wrong)} of {len(found)} cannot be used: {', '.join(wrong)}",
            "`hpc-batch lint` tells what is wrong with each",
        )
    return Verdict("ok", f"{len(found)} in {folder}")


def check_cron(subject: Subject) -> Verdict:
    """Look for a line in the crontab, or for passes that something else starts."""
    config = subject.config
    age = status.read(config.cronjob.dropbox, config.cronjob.state).age(datetime.now(timezone.utc))
    when = f"last pass {int(age.total_seconds())} s ago" if age is not None else "no pass yet"
    fix = f"`hpc-batch -c {config.path} cron install`"
    try:
        there = crontab.mentioned(crontab.read(), config.path)
    except ConfigError as error:
        there, fix = False, str(error)
    if there and (age is None or age <= status.STALE):
        return Verdict("ok", f"the crontab has a line; {when}")
    if there:
        return Verdict(
            "warning", f"the crontab has a line, but {when}", "is the cron daemon running?"
        )
    if age is not None and age <= status.STALE:
        return Verdict("ok", f"no line in this account's crontab, but {when}")
    return Verdict("warning", f"no line in this account's crontab; {when}", fix)


def _try(folder: Path) -> None:
    """Write a file and rename it. Raises OSError."""
    probe = folder / f".hpc_batch.{secrets.token_hex(4)}.probe"
    try:
        files.write_new(str(probe), b"x")
        files.rename(str(probe), f"{probe}.renamed")
    finally:
        files.unlink(str(probe))
        files.unlink(f"{probe}.renamed")


def _is_wrong(path: Path, trusted: frozenset[str]) -> bool:
    """Tell whether a template has an error; advice is none."""
    try:
        chosen = template.load(path.parent, path.stem)
        found = template.lint(chosen, None, trusted)
        if not any(finding.severity == "error" for finding in found):
            found += syntax_check(chosen)
    except HpcBatchError:
        return True
    return any(finding.severity == "error" for finding in found)


HERE = (
    Check("config", check_config),
    Check("dropbox", check_dropbox, ("config",)),
    Check("templates", check_templates, ("config",)),
)
CRON = Check("cron", check_cron, ("config", "dropbox"))
