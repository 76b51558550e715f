"""The table of faults: what can happen to each effect.

`kill-before` can happen to any. `kill-after` is the same as `kill-before` the next effect of that
process, but where the effect is on another one, which goes on meanwhile. An errno's name: the
effect fails with it and did nothing. `done-but-error`: it is done and EIO is reported, as by a
network file system whose answer was lost; `done-but-again`: it is done, the lost answer made the
client repeat it, and the error of the second try is reported; `done-but-full`: it is done and
ENOSPC is reported. `short`: half of the bytes are written and then the disk is full. `half`: half
of a folder is removed, and then comes the kill; `nothing`: nothing of it is, and nobody says so.

Of the channels between the two sides: `lost` is a connection that breaks before the bytes go out,
`done-but-lost` after. `time-out`: the other side goes on working and says nothing in time. `late`:
the near end is killed while its far end stands still, and the far end works off what it has only
later, after the next pass and its pilots (`very-late`: when every job is answered); the same of a
pilot that its batch system has given up.
"""

from __future__ import annotations

KILL = "kill-before"
LATENESS = ("late", "very-late")

OUTWARD = (
    "send",
    "start",
    "submit",
    "query",
    "cancel",
    "channel open",
    "channel write",
    "channel read",
)
"""Effects on other processes: to die before and after them is not the same."""

SPACE = ("ENOSPC", "EDQUOT")
STORAGE = ("EIO", "ESTALE", "EACCES")
"""The last one is said once here, and so must not be believed."""
NAMES = (*SPACE, *STORAGE, "done-but-error", "done-but-again")
"""Of what makes a name."""

FAULTS: dict[str, tuple[str, ...]] = {
    # files
    "open": (*SPACE, *STORAGE, "done-but-error"),
    "write": (*SPACE, *STORAGE, "short"),
    "pwrite": (*SPACE, *STORAGE, "short"),
    "ftruncate": STORAGE,
    "fallocate": (*SPACE, "EINVAL"),
    "close": ("done-but-error", "done-but-full"),
    "fsync": (*SPACE, *STORAGE),
    "syncfs": (*SPACE, *STORAGE),
    "fchown": ("EIO", "EPERM"),
    "fchmod": STORAGE,
    "chmod": STORAGE,
    "utime": STORAGE,
    # names
    "rename": NAMES,
    "link": (*NAMES, "EPERM"),
    "symlink": NAMES,
    "mkdir": NAMES,
    "unlink": (*STORAGE, "done-but-error", "done-but-again"),
    "rmdir": (*STORAGE, "done-but-error", "done-but-again"),
    "rmtree": ("half", "nothing"),
    # other processes
    "start": ("EAGAIN", "ENOMEM"),
    "kill_group": (),
    "send": ("EPIPE",),
    # the batch system
    "submit": ("refused", "time-out", "done-but-time-out"),
    "query": ("refused", "time-out"),
    "cancel": ("time-out",),
    # the near end's channels
    "channel open": ("lost",),
    "channel write": ("lost", "done-but-lost", "time-out", *LATENESS),
    "channel read": ("lost",),
}
"""Effect: what can happen to it beside a kill."""

LATE = ("serve", "data", "pilot")
"""Processes that may stand still before any effect of theirs and go on late."""

AGAIN = {
    "rename": "ENOENT",
    "unlink": "ENOENT",
    "rmdir": "ENOENT",
    "link": "EEXIST",
    "symlink": "EEXIST",
    "mkdir": "EEXIST",
}
"""What the second try of an effect that was done says."""


def faults_of(role: str, effect: str) -> tuple[str, ...]:
    """Return everything that can happen to an effect of a process of this role."""
    late = LATENESS if role in LATE else ()
    after = ("kill-after",) if effect in OUTWARD else ()
    return (KILL, *after, *FAULTS[effect], *late)
