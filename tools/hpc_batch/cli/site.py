"""Which dropbox, which state and which configuration a command is about.

Users may know nothing but the dropbox: the ini may hold a secret that is not theirs to read. So the
verbs for users need the dropbox only, named with `--dropbox` or $HPC_BATCH_DROPBOX, or by the ini;
with an ini, jobs are checked before they are dropped, and the state folder says more about them.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hpc_batch import status
from hpc_batch.cli import exit_codes
from hpc_batch.cli.ini import load
from hpc_batch.cli.output import CommandError
from hpc_batch.cli.request import Request
from hpc_batch.client import Dropbox
from hpc_batch.config import Config
from hpc_batch.errors import ConfigError
from hpc_batch.selection import NoSuchJob, select
from hpc_cluster import files

LOOKS, BETWEEN_S = 6, 0.5
"""A job that is just being taken shows none of its files; so often, and so far apart, it is looked
for before it counts as unknown."""


@dataclass(frozen=True)
class Site:
    """What a command is about."""

    dropbox: Dropbox
    state: Path | None
    """The service's private folder; None when nothing says where it is."""
    config: Config | None

    def look(self, since: datetime | None = None) -> status.Status:
        """Return what can be seen now."""
        return status.read(self.dropbox.path, self.state, since)

    def find(self, selectors: tuple[str, ...]) -> list[status.Seen]:
        """Return the jobs that were named. Raises CommandError for a name that means no job."""
        for look in range(LOOKS):
            try:
                return select(self.look().jobs, selectors)
            except NoSuchJob as error:
                problem = str(error)
            if look < LOOKS - 1:
                time.sleep(BETWEEN_S)
        hint = "`hpc-batch list --all` shows all that are known"
        raise CommandError(exit_codes.FAILED, "no_such_job", problem, hint)


def site_of(request: Request) -> Site:
    """Return what a user's verb is about. Raises ConfigError, CommandError."""
    named = request.dropbox
    if named is None and request.config is None and os.environ.get("HPC_BATCH_DROPBOX"):
        named = Path(os.environ["HPC_BATCH_DROPBOX"])
    if named is not None:
        folder = Path(os.path.abspath(named))
        beside = folder.with_name(folder.name + ".state")
        config = load(request) if request.config is not None else None
        return Site(_dropbox(folder), beside if beside.is_dir() else None, config)
    config = load(request)
    return Site(_dropbox(config.cronjob.dropbox), config.cronjob.state, config)


def write_traceback(request: Request | None) -> str:
    """Keep the current traceback, in the state's log if that is ours; return where, in words."""
    text = traceback.format_exc()
    if request is not None and request.debug:
        sys.stderr.write(text)
        return "above"
    try:
        if request is None:
            raise ConfigError("nothing was understood")
        log = load(request).cronjob.state / "log"
        files.append(str(log), f"{status.iso(time.time())} {' '.join(sys.argv)}\n{text}".encode())
    except Exception:  # whatever it is, the first error is the one to tell
        descriptor, name = tempfile.mkstemp(prefix="hpc-batch-", suffix=".traceback")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        return f"in {name}"
    return f"in {log}"


def _dropbox(path: Path) -> Dropbox:
    try:
        return Dropbox(path)
    except NotADirectoryError as error:
        raise CommandError(
            exit_codes.CONFIGURATION, "dropbox", str(error), f"make it: mkdir -p {path}"
        ) from None
