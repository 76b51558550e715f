"""The policy: what the operator wants of pilots, as it travels from the configuration."""

import hashlib
import re
from typing import Any, Dict, NamedTuple, Optional, Tuple

from hpc_cluster.errors import ClusterError

OPTIONS = ("account", "qos", "partition", "gres", "memory", "email")
"""Handed to the batch system's submit command."""


class PolicyError(ClusterError):
    """The policy cannot be used."""

    kind = "usage"


class Policy(NamedTuple):
    """How many pilots, of which kind."""

    scheduler: str = "local"
    max: int = 1
    """Pilots at a time."""
    slots: int = 1
    """Jobs at a time in each pilot."""
    linger: float = 150.0
    """Seconds an idle pilot waits for more."""
    walltime: int = 28800
    """Seconds."""
    successor: bool = False
    """The next pilot is queued early, in a slot beyond `max`."""
    options: Tuple[str, ...] = ()
    """Further arguments of the submit command."""
    account: Optional[str] = None
    qos: Optional[str] = None
    partition: Optional[str] = None
    gres: Optional[str] = None
    memory: Optional[str] = None
    """GB."""
    email: Optional[str] = None
    prologue: str = ""
    """Lines of shell before the runner."""
    gpuram: Optional[float] = None
    """The least memory of a GPU, in GB."""
    attempts: int = 3
    """For jobs whose description cannot be read: so many pilots may die on one."""
    starts: int = 10
    submit: bool = True
    """False: only observe, and take tickets from dead pilots."""
    python: str = "python3"
    """The Python that runs pilots."""

    @property
    def recipe(self) -> str:
        """What tells pilots of one making from others: a digest of what they are submitted with."""
        made_of = [getattr(self, key) for key in (*OPTIONS, "scheduler", "walltime", "options")]
        text = repr([*made_of, self.prologue, self.gpuram, self.python])
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]

    @property
    def wants_gpu(self) -> bool:
        """A GPU is asked for."""
        return re.search(r"(?:^|[,/])gpu(?:$|[:,=])", self.gres or "") is not None

    @classmethod
    def parse(cls, tree: Any) -> "Policy":
        """Return the policy in a JSON object. Raises PolicyError with all problems."""
        if not isinstance(tree, dict):
            raise PolicyError("the policy is not a JSON object")
        problems = [f"unknown key {key!r}" for key in sorted(tree) if key not in cls._fields]
        values: Dict[str, Any] = {}
        for key, default in cls._field_defaults.items():
            value = tree.get(key, default)
            if key in ("linger", "gpuram", "memory") and _is_number(value):
                value = f"{value:g}" if key == "memory" else float(str(value))
            if key == "options" and isinstance(value, (list, tuple)):
                value = tuple(value)
            if not _suits(value, default, key):
                problems.append(f"{key} has no use for {value!r}")
            values[key] = value
        if problems:
            raise PolicyError("the policy is bad: " + "; ".join(problems))
        return cls(**values)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _suits(value: Any, default: Any, key: str) -> bool:
    """Tell whether a value has the type of its key and a sensible size."""
    if key == "options":
        return isinstance(value, tuple) and all(isinstance(word, str) for word in value)
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, int):
        return isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if isinstance(default, float) or key == "gpuram":
        return (value is None and default is None) or (_is_number(value) and value >= 0)
    if isinstance(default, str):
        return isinstance(value, str)
    return value is None or isinstance(value, str)
