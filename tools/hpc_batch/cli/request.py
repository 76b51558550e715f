"""What every request has, and the request of a pass: cron's pass loads this and no other verb."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Request:
    """What every verb has."""

    config: Path | None
    """The ini named with -c; None: the usual places."""
    dropbox: Path | None
    """The dropbox named with --dropbox, for who may not read the ini."""
    json: bool
    debug: bool
    """Tracebacks and log on stderr."""


@dataclass(frozen=True)
class Pass(Request):
    """hpc-batch pass, and hpc_submitter"""

    nocleanup: bool
    email: str | None
