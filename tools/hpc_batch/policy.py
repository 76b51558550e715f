"""The policy: what the operator wants of pilots, as it travels to the cluster."""

from __future__ import annotations

from typing import Any

from hpc_batch.config import Config


def policy(config: Config, email: str | None = None, *, submit: bool) -> dict[str, Any]:
    """Return the policy as the verbs `pilots` and `submit` take it.

    `email` stands in place of [hpc] email; without `submit`, pilots are only looked at, and what
    dead ones left is taken from them.
    """
    hpc, pilot, limits = config.hpc, config.pilot, config.limits
    return {
        "scheduler": hpc.scheduler,
        "max": pilot.max,
        "slots": pilot.slots,
        "linger": pilot.linger,
        "walltime": hpc.walltime,
        "options": list(hpc.options),
        "account": hpc.account,
        "qos": hpc.qos,
        "partition": hpc.partition,
        "gres": hpc.gres,
        "memory": hpc.memory,
        "gpuram": hpc.gpuram,
        "email": email or hpc.email,
        "prologue": hpc.prologue,
        "attempts": limits.attempts,
        "starts": limits.starts,
        "submit": submit,
        "python": config.remote.python,
        # Sent only where it says something: a cluster's side of before does not know it.
        **({"successor": True} if pilot.successor else {}),
    }
