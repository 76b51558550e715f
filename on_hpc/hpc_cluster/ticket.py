"""A ticket: the one file whose folder is a job's state, and whose name says all about it.

    incoming/J.S                  being staged by session S
    ready/J.aNcC                  waiting: N starts and C crashes so far
    running/J.aNcC.P              claimed by pilot P; N counts this start
    done/INSTANCE/J.aN.P.KIND     ended in start N under pilot P ("-": no pilot was involved)

What a ticket says is its name. It is made empty, and is given the job's description before it is
published, to be one more name of that file (`loading`); nobody reads it here. Names are parsed
strictly; whatever does not match is not ours and is ignored, so that an editor's backup or a
network file system's `.nfs…` never becomes a job.
"""

import re
from typing import NamedTuple, Optional

STATES = ("incoming", "ready", "running", "done")
"""The states in the order in which a job goes through them."""

KINDS = ("ok", "fail", "died", "cancelled")
"""How a job can end; died: its pilots died on it, or it was started, too often."""

NO_PILOT = "-"
"""Stands for the pilot in the done ticket of a job that nobody had claimed."""

_INSTANCE = r"[0-9a-f]{8}"
_RANDOM = r"[0-9a-f]{16}"
_COUNT = r"0|[1-9][0-9]{0,5}"
_JOB = r"(?P<job>" + _INSTANCE + r"-[0-9a-f]{11}-" + _RANDOM + r")"
_STARTS = r"\.a(?P<starts>" + _COUNT + r")"
_CRASHES = r"c(?P<crashes>" + _COUNT + r")"

_MATCHERS = {
    "incoming": re.compile(_JOB + r"\.(?P<session>" + _RANDOM + r")"),
    "ready": re.compile(_JOB + _STARTS + _CRASHES),
    "running": re.compile(_JOB + _STARTS + _CRASHES + r"\.(?P<pilot>" + _RANDOM + r")"),
    "done": re.compile(
        _JOB + _STARTS + r"\.(?P<pilot>" + _RANDOM + r"|-)\.(?P<kind>" + "|".join(KINDS) + r")"
    ),
}


class Ticket(NamedTuple):
    """One ticket; fields that its state does not have are empty or 0."""

    state: str
    """One of STATES."""
    job: str
    """J, the job's id; its first eight characters are the instance that made it."""
    starts: int = 0
    """How often the job was started, this start of a running one included."""
    crashes: int = 0
    """How many pilots died on it; not kept in done."""
    session: str = ""
    """S of an incoming ticket."""
    pilot: str = ""
    """P of a running or done ticket; NO_PILOT where nobody had claimed it."""
    kind: str = ""
    """One of KINDS, of a done ticket."""

    @property
    def name(self) -> str:
        """The file's name."""
        if self.state == "incoming":
            return f"{self.job}.{self.session}"
        if self.state == "ready":
            return f"{self.job}.a{self.starts}c{self.crashes}"
        if self.state == "running":
            return f"{self.job}.a{self.starts}c{self.crashes}.{self.pilot}"
        return f"{self.job}.a{self.starts}.{self.pilot}.{self.kind}"

    @property
    def instance(self) -> str:
        """The service host's instance that owns the job."""
        return instance_of(self.job)


def parse(state: str, name: str) -> Optional[Ticket]:
    """Return the ticket of this name in the folder of `state`; None when the name is not ours."""
    match = _MATCHERS[state].fullmatch(name)
    if match is None:
        return None
    found = match.groupdict()
    return Ticket(
        state=state,
        job=found["job"],
        starts=int(found.get("starts") or 0),
        crashes=int(found.get("crashes") or 0),
        session=found.get("session") or "",
        pilot=found.get("pilot") or "",
        kind=found.get("kind") or "",
    )


def instance_of(job: str) -> str:
    """Return the instance in a job's id."""
    return job[:8]


def is_job(text: str) -> bool:
    """Tell whether this is the id of a job."""
    return re.fullmatch(_JOB, text) is not None


def is_random(text: str) -> bool:
    """Tell whether this is the id of a session or a pilot."""
    return re.fullmatch(_RANDOM, text) is not None


def is_instance(text: str) -> bool:
    """Tell whether this is an instance."""
    return re.fullmatch(_INSTANCE, text) is not None
