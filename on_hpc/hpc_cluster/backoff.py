"""The back-off: after a failure, the next pilot is not submitted at once.

When submissions are refused, or pilots die before they claim anything, the next one waits 0, 1, 15,
30, 60 minutes. The failures in a row and the last reason are kept in `pilots/trouble`; its mtime,
by the file server's clock, is when the last one was. The first pilot that works and was submitted
after that ends it.

The waiting is for pilots like those that failed: where the operator has changed what pilots are
submitted with (`Policy.recipe`), the next one is submitted at once.

A failure that says nothing about pilots is a passing one: the batch system could not be reached, or
somebody cancelled a pilot that had not begun. Such failures alone never make anyone wait longer
than a minute.
"""

import os
from typing import Any, Dict, Iterable, Optional

from hpc_cluster import clock, files
from hpc_cluster.spool import Spool

DELAYS_S = (0.0, 60.0, 900.0, 1800.0, 3600.0)
"""Waiting after the first, second, … failure in a row."""

PASSING = 2
"""Passing failures are counted no further: DELAYS_S[PASSING - 1] is the longest wait for them."""


RECIPES = 16
"""So many recipes that failed are remembered, the latest ones."""


def note(
    spool: Spool, what: str, message: str, recipe: Optional[str], *, passing: bool = False
) -> None:
    """Count one more failure in a row: of a submission (`submit`) or of a pilot (`pilot`)."""
    before = read(spool)
    failures = int(before.get("failures", 0))
    now = {
        "failures": max(failures, min(failures + 1, PASSING)) if passing else failures + 1,
        "what": what,
        "message": message,
        "since": before.get("since", clock.iso()),
        "recipes": [r for r in before.get("recipes", ()) if r != recipe][1 - RECIPES :] + [recipe],
    }
    files.replace(_path(spool), files.to_json(now), f".{os.urandom(4).hex()}.new")


def forget(spool: Spool, working: Iterable[str]) -> None:
    """End the trouble when one of these working pilots was submitted after it."""
    try:
        failed = os.stat(_path(spool)).st_mtime_ns
        for pilot in working:
            path = files.join(spool.pilot_folder(pilot), "pilot.json")
            if os.stat(path).st_mtime_ns > failed:
                files.unlink(_path(spool))
    except FileNotFoundError:
        # RACE: another host saw a pilot that works; or there is no trouble, as nearly always.
        return


def wait_s(spool: Spool, recipe: str) -> float:
    """Return for how long no pilot of a recipe may be submitted; 0 or less: not at all."""
    found = read(spool)
    failures, failed_ones = int(found.get("failures", 0)), found.get("recipes", [None])
    if not failures or not (recipe in failed_ones or None in failed_ones):
        return 0.0
    try:
        failed = os.stat(_path(spool)).st_mtime
    except FileNotFoundError:
        # RACE: another host saw a pilot that works.
        return 0.0
    now = files.server_now(spool.path("pilots"), f"probe.{clock.node()}")
    if failed > now:
        # The file server's clock was set back since; nobody waits until it has caught up.
        files.touch(_path(spool))
        failed = now
    return failed + DELAYS_S[min(failures, len(DELAYS_S)) - 1] - now


def read(spool: Spool) -> Dict[str, Any]:
    """Return what is kept of the trouble; empty when there is none."""
    try:
        found = files.read_json(_path(spool))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def shown(spool: Spool, recipe: str) -> Optional[Dict[str, Any]]:
    """Return the trouble as the report shows it: what, message, since, and when it goes on."""
    found = read(spool)
    if not found:
        return None
    left = max(0.0, wait_s(spool, recipe))
    return {
        "what": found.get("what"),
        "message": found.get("message"),
        "since": found.get("since"),
        "next": clock.iso(clock.unix() + left),
    }


def _path(spool: Spool) -> bytes:
    return spool.path("pilots", "trouble")
