"""The listing: the dropbox as one look shows it, and what in it can be taken at all.

What cannot even be answered, such as a FIFO, is left alone.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import stat
from dataclasses import dataclass
from typing import Iterable

from hpc_cluster import files

NAME_BYTES = 255 - len(".finished")
"""A longer name leaves no room for its answer's."""

DRAFT = re.compile(r"\.hpcb-[0-9a-f]{16}\.drop")
"""The names of drafts (`client`)."""


@dataclass(frozen=True)
class Drop:
    """A file in the dropbox whose name ends in `.job`."""

    name: str
    """Base name (file system encoding with surrogate escapes)."""
    changed: float
    """ctime in seconds by the dropbox's clock."""
    regular: bool
    links: int


@dataclass(frozen=True)
class Listing:
    """The dropbox as one look shows it."""

    drops: tuple[Drop, ...]
    cancels: tuple[str, ...]
    """Names of the jobs whose `.job.cancel` is there."""
    drafts: tuple[Drop, ...] = ()
    """What our client writes before it takes the name of a drop; for an instant, if it lives."""


def look(dropbox: os.PathLike[str]) -> Listing:
    """List the dropbox. Dot files are not drops: writers use them before they rename."""
    drops, cancels, drafts = [], [], []
    with os.scandir(dropbox) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                if DRAFT.fullmatch(name):
                    with contextlib.suppress(FileNotFoundError):
                        # RACE: it has its name by now.
                        status = entry.stat(follow_symlinks=False)
                        regular = stat.S_ISREG(status.st_mode)
                        drafts.append(Drop(name, status.st_ctime, regular, status.st_nlink))
                continue
            if name.endswith(".job.cancel"):
                cancels.append(name[: -len(".cancel")])
            elif name.endswith(".job"):
                with contextlib.suppress(FileNotFoundError):
                    # RACE: a drop may be withdrawn while we look.
                    status = entry.stat(follow_symlinks=False)
                    regular = stat.S_ISREG(status.st_mode)
                    drops.append(Drop(name, status.st_ctime, regular, status.st_nlink))
    drops.sort(key=lambda d: (d.changed, d.name))
    return Listing(tuple(drops), tuple(sorted(cancels)), tuple(drafts))


def recorded(name: str) -> str:
    """Return a name of the dropbox as records hold it."""
    return files.from_bytes(os.fsencode(name))


def unanswerable(drop: Drop) -> str | None:
    """Return why a drop can never be taken; None when it can."""
    if not drop.regular:
        return "is not a regular file and is left alone; remove it"
    if len(os.fsencode(drop.name)) > NAME_BYTES:
        return f"has a name of more than {NAME_BYTES} bytes, which leaves no room for its answer's"
    if drop.links != 1:
        return "has more than one hard link and is left alone until it has one"
    return None


def may_submit(owner: int, accepted: Iterable[str]) -> bool | None:
    """Tell whether a user's drops are taken: this account's are, and all where none is named.

    None where the user's name is not to be had: a directory service that fails looks like that.
    """
    names = set(accepted)
    if not names or owner == os.geteuid() or str(owner) in names:
        return True
    try:
        return pwd.getpwuid(owner).pw_name in names
    except KeyError:
        return None
