"""Fitting: whether a job's time limit fits the pilots of this configuration.

A pilot lives for [hpc] walltime. It starts a job only when the job's time limit and its grace fit
what is left of that, so one that needs more than a fresh pilot has would wait for ever.
"""

from __future__ import annotations

from hpc_cluster.walltime import longest_s

GRACE_S = 30
"""How long a job that must stop may take to do so."""


def need_s(time_limit: int | None) -> int:
    """Return the walltime that a job may need; 0: as much as there is."""
    return time_limit + GRACE_S if time_limit else 0


def misfit(need: int, walltime: int) -> str | None:
    """Return why a job that may need so many seconds fits no pilot; None when it fits."""
    most = longest_s(walltime)
    if need <= most:
        return None
    return (
        f"its time limit of {span(need - GRACE_S)}, with {GRACE_S} s to stop in, does not fit a "
        f"pilot: [hpc] walltime is {span(walltime)}. Raise it, or shorten the time limit "
        f"(#HPC --time-limit, [limits] time_limit) to {span(int(most) - GRACE_S)} or less"
    )


def span(seconds: int) -> str:
    """Return a duration as the configuration writes it: 1h30m."""
    parts = ((seconds // 3600, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s"))
    return "".join(f"{count}{unit}" for count, unit in parts if count) or "0s"
