"""What a check is, and how checks are run.

A check is a function of the subject that returns a verdict, or raises an error of ours, which
becomes one. A check whose needs failed is not run: it is skipped, so that one fault shows once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Literal

from hpc_batch import hosts
from hpc_batch.config import Config
from hpc_batch.errors import ConfigError, HpcBatchError
from hpc_batch.hosts import Host

Level = Literal["ok", "warning", "unknown", "error", "skipped"]

LEVELS: tuple[Level, ...] = ("ok", "warning", "unknown", "error", "skipped")
"""warning: it works, and something may surprise later; unknown: nobody could say; error: it does
not work; skipped: what it needs does not work, or nobody asked for it."""

WRONG = frozenset(("unknown", "error"))


@dataclass(frozen=True)
class Verdict:
    """What a check found."""

    level: Level
    detail: str
    """One sentence, or less."""
    fix: str = ""
    """What to do; for everything but ok."""


@dataclass(frozen=True)
class Finding:
    """A verdict of a check, by name."""

    check: str
    level: Level
    detail: str
    fix: str = ""
    took_s: float = 0.0

    def document(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {**vars(self), "fix": self.fix or None}


@dataclass
class Subject:
    """What is examined, and what earlier checks learned of it."""

    path: Path | None
    """The ini named with -c; None: the usual places."""
    talk: Callable[[str], None]
    """Told what takes long."""
    timeout_s: float = 3600.0
    """For the job of --deep."""
    offline: bool = False
    known: dict[str, Any] = field(default_factory=dict)
    """Results that later checks read, by the check's name."""
    _host: Host | None = None

    @property
    def config(self) -> Config:
        """Return the configuration; the check of that name has loaded it."""
        config: Config = self.known["config"]
        return config

    @property
    def host(self) -> Host:
        """Return the host; one login serves all checks."""
        if self._host is None:
            self._host = hosts.connect(self.config.remote)
        return self._host

    def close(self) -> None:
        """End the login."""
        if self._host is not None:
            self._host.close()
            self._host = None


@dataclass(frozen=True)
class Check:
    """One thing to look at."""

    name: str
    act: Callable[[Subject], Verdict]
    needs: tuple[str, ...] = ()
    """Names of checks that must not have failed."""
    connects: bool = False
    """Not with --offline."""


def examine(
    checks: Sequence[Check], subject: Subject, only: Sequence[str] = ()
) -> Iterator[Finding]:
    """Run checks in their order and yield a finding for each.

    With `only`, these and what they need are run, and what they need is yielded where it failed.
    """
    wanted = _closure(checks, only) if only else {check.name for check in checks}
    levels: dict[str, Level] = {}
    try:
        for check in checks:
            if check.name not in wanted:
                continue
            finding = _run(check, subject, levels)
            levels[check.name] = finding.level
            if not only or check.name in only or finding.level in WRONG:
                yield finding
    finally:
        subject.close()


def is_wrong(findings: Sequence[Finding]) -> bool:
    """Tell whether anything does not work, or is not known to."""
    return any(finding.level in WRONG for finding in findings)


def _run(check: Check, subject: Subject, levels: Mapping[str, Level]) -> Finding:
    failed = [name for name in check.needs if levels.get(name, "ok") in ("error", "skipped")]
    if subject.offline and check.connects:
        return Finding(check.name, "skipped", "offline")
    if failed:
        return Finding(check.name, "skipped", f"needs {failed[0]}")
    begun = time.monotonic()
    try:
        verdict = check.act(subject)
    except ConfigError as error:
        verdict = Verdict("error", "; ".join(error.problems), "")
    except HpcBatchError as error:
        verdict = Verdict("error", str(error), getattr(error, "hint", ""))
    took = round(time.monotonic() - begun, 3)
    return Finding(check.name, verdict.level, verdict.detail, verdict.fix, took)


def _closure(checks: Sequence[Check], only: Sequence[str]) -> set[str]:
    """Return the names of checks and of all that they need."""
    needs = {check.name: check.needs for check in checks}
    wanted: set[str] = set()
    waiting = list(only)
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            wanted.add(name)
            waiting += needs[name]
    return wanted
