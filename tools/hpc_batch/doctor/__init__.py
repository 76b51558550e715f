"""The doctor: checks of a whole installation, from its configuration to a job's answer.

    checks   what a check is, and how they are run: in the order of what they need
    here     configuration, dropbox, templates, cron line
    there    network, host key, login, Python, checkout, workspace, scheduler, containers, space
    deep     a real job, through the real dropbox and a real pilot

Everything is looked at by the code that passes use, and nothing is changed, but for `--deep`.
"""

from __future__ import annotations

from hpc_batch.doctor.checks import LEVELS, Check, Finding, Subject, examine, is_wrong
from hpc_batch.doctor.deep import DEEP
from hpc_batch.doctor.here import CRON, HERE
from hpc_batch.doctor.there import THERE

CHECKS: tuple[Check, ...] = (*HERE, *THERE, CRON, DEEP)
"""All, each after those that it needs."""

NAMES = tuple(check.name for check in CHECKS)

__all__ = ["CHECKS", "LEVELS", "NAMES", "Finding", "Subject", "examine", "is_wrong"]
