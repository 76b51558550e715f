"""What was typed, as values: one frozen dataclass for each verb."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from hpc_batch.cli.request import Request


@dataclass(frozen=True)
class Dropped(Request):
    """What `submit` and `run` drop: files, or a job put together from options."""

    files: tuple[str, ...]
    """Paths of job files; `-` is stdin."""
    name: str | None
    script: str | None
    args: tuple[tuple[str, str], ...]
    """Key and value; a key that comes again makes a list."""
    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[tuple[str, str], ...]
    dry_run: bool


@dataclass(frozen=True)
class Submit(Dropped):
    """hpc-batch submit"""


@dataclass(frozen=True)
class Run(Dropped):
    """hpc-batch run"""

    timeout: float | None
    """Seconds; None: as long as it takes."""
    period: float
    lwlw: bool


@dataclass(frozen=True)
class Wait(Request):
    """hpc-batch wait"""

    jobs: tuple[str, ...]
    timeout: float | None
    period: float


@dataclass(frozen=True)
class Check(Request):
    """hpc-batch check"""

    job: str


@dataclass(frozen=True)
class List(Request):
    """hpc-batch list"""

    states: tuple[str, ...]
    since: timedelta
    all: bool


@dataclass(frozen=True)
class Show(Request):
    """hpc-batch show"""

    jobs: tuple[str, ...]


@dataclass(frozen=True)
class Logs(Request):
    """hpc-batch logs"""

    job: str
    stderr: bool
    follow: bool
    period: float


@dataclass(frozen=True)
class Cancel(Request):
    """hpc-batch cancel"""

    jobs: tuple[str, ...]
    dry_run: bool


@dataclass(frozen=True)
class Retry(Request):
    """hpc-batch retry"""

    jobs: tuple[str, ...]
    dry_run: bool


@dataclass(frozen=True)
class Lint(Request):
    """hpc-batch lint"""

    files: tuple[str, ...]


@dataclass(frozen=True)
class Render(Request):
    """hpc-batch render"""

    file: str


@dataclass(frozen=True)
class Overview(Request):
    """hpc-batch status"""


@dataclass(frozen=True)
class Pause(Request):
    """hpc-batch pause"""

    reason: str
    until: datetime | None
    dry_run: bool


@dataclass(frozen=True)
class Resume(Request):
    """hpc-batch resume"""

    restored: bool
    dry_run: bool


@dataclass(frozen=True)
class Demo(Request):
    """hpc-batch demo"""

    folder: Path | None
    timeout: float


@dataclass(frozen=True)
class ShowConfig(Request):
    """hpc-batch config"""

    what: str


@dataclass(frozen=True)
class Clean(Request):
    """hpc-batch clean"""

    older_than: timedelta
    kept: bool
    dry_run: bool


@dataclass(frozen=True)
class Explain(Request):
    """hpc-batch explain"""

    jobs: tuple[str, ...]


@dataclass(frozen=True)
class Init(Request):
    """hpc-batch init"""

    settings: tuple[tuple[tuple[str, str], str], ...]
    """((section, key), value)."""
    non_interactive: bool
    force: bool
    dry_run: bool


@dataclass(frozen=True)
class Doctor(Request):
    """hpc-batch doctor"""

    deep: bool
    offline: bool
    only: tuple[str, ...]
    timeout: float
    """Seconds, for the job of --deep."""


@dataclass(frozen=True)
class Deploy(Request):
    """hpc-batch deploy"""

    force: bool
    dry_run: bool


@dataclass(frozen=True)
class Pilots(Request):
    """hpc-batch pilot"""

    what: str
    pilots: tuple[str, ...]
    """Names or native ids; none: all."""
    yes: bool
    dry_run: bool


@dataclass(frozen=True)
class Cron(Request):
    """hpc-batch cron"""

    what: str
    every: int
    """Minutes."""
    yes: bool
    dry_run: bool
