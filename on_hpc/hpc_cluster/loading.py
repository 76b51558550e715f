"""Loading jobs: what a job needs is put into jobs/J, durably, before its ticket may be published.

Inputs are links to the store (copies where the file system cannot link), as in/0, in/1, …, in the
order of the description; the description and the script are written beside them. Each file is
written under a name with the session in it and renamed, all jobs of a request together, so that a
thousand jobs are as durable as one for the same number of syncs. Repeating it changes nothing.
"""

import errno
import os
import stat
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

from hpc_cluster import description, durable, files
from hpc_cluster.errors import DescriptionError
from hpc_cluster.spool import Spool
from hpc_cluster.store import Missing, Store
from hpc_cluster.ticket import Ticket

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
"""Errors that the next job meets as well; the request fails as a whole."""


class Load(NamedTuple):
    """One job to load, as it was asked for and checked."""

    job: str
    description: Dict[str, Any]
    script: bytes
    inputs: List[Tuple[str, int]]
    """Of each input its key in the store (empty: it was sent into in/ directly) and its size."""


class NotStaged(Exception):
    """The job is not being staged by this session, or something of it must be sent again."""


def load_all(
    spool: Spool, store: Store, session: str, loads: Sequence[Load]
) -> Tuple[List[str], Dict[str, str]]:
    """Load jobs whose tickets lie in incoming/; return those that are ready to be published, and
    for each other one why it must be staged again. Raises OSError when the disk is full."""
    good, again = [], {}
    copies: List[Tuple[bytes, bytes]] = []
    for load in loads:
        try:
            copies += _furnish(spool, store, session, load)
            good.append(load)
        except (NotStaged, DescriptionError) as error:
            again[load.job] = str(error)
        except OSError as error:
            if error.errno in FULL:
                raise
            again[load.job] = f"{error.strerror}: {error.filename or load.job}"
    durable.sync_files([temporary for temporary, _ in copies])
    for temporary, final in copies:
        files.rename(temporary, final)
    files.replace_all([pair for load in good for pair in _texts(spool, load)], "." + session)
    durable.sync_folders(spool.path("jobs", load.job, "in") for load in good)
    if good:
        durable.sync_folder(spool.path("incoming"))
    return [load.job for load in good], again


def _texts(spool: Spool, load: Load) -> List[Tuple[files.Path, bytes]]:
    return [
        (spool.path("jobs", load.job, "script"), load.script),
        (spool.path("jobs", load.job, "description.json"), files.to_json(load.description)),
    ]


def _furnish(spool: Spool, store: Store, session: str, load: Load) -> List[Tuple[bytes, bytes]]:
    """Check a job and link its inputs; return copies still to be synced and renamed."""
    found = description.parse(load.description)
    if found.job != load.job or [i.size for i in found.inputs] != [n for _, n in load.inputs]:
        raise DescriptionError("the description does not belong to what was staged")
    if not files.exists(spool.ticket_path(Ticket("incoming", load.job, session=session))):
        raise NotStaged("the job is not being staged by this session")
    copies = []
    for number, (key, size) in enumerate(load.inputs):
        final = spool.path("jobs", load.job, "in", str(number))
        if not key:
            if not _is_file(final, size):
                raise NotStaged(f"input {number} did not arrive")
            continue
        temporary = final + files.to_bytes("." + session)
        try:
            if store.same(key, size, final):
                continue
            files.unlink(temporary)
            if store.link(key, size, temporary):
                copies.append((temporary, final))
            else:
                files.rename(temporary, final)
        except Missing:
            raise NotStaged(f"input {number} must be sent again") from None
    return copies


def _is_file(path: bytes, size: int) -> bool:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == size
