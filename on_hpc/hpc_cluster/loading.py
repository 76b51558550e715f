"""Loading jobs: what a job needs is put into jobs/J, durably, before its ticket may be published.

Inputs are links to the store (copies where the file system cannot link), as in0, in1, …, in the
order of the description. The description, with the script in it, is written into the job's ticket
and gets its own name as a link to it: to make a file costs a disk more than anything else here. A
description that lies there already, or that cannot be a link, is replaced by a whole one. All jobs
of a request are made durable together, so that a thousand cost as many syncs as one. Repeating it
changes nothing.
"""

import errno
import os
import stat
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

from hpc_cluster import description, durable, files
from hpc_cluster.errors import DescriptionError
from hpc_cluster.spool import Spool
from hpc_cluster.store import CANNOT_LINK, Missing, Store

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
"""Errors that the next job meets as well; the request fails as a whole."""


class Load(NamedTuple):
    """One job to load, as it was asked for and checked."""

    job: str
    description: Dict[str, Any]
    script: bytes
    inputs: List[Tuple[str, int]]
    """Of each input its key in the store (empty: it was sent to the job directly) and its size."""


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
    others = [load for load in good if not _name(spool, session, load)]
    files.replace_all([pair for load in others for pair in _texts(spool, load)], "." + session)
    is_all = durable.sync_files([spool.incoming_path(load.job, session) for load in good])
    if others or not is_all:
        spool.furnished([load.job for load in good])
    durable.sync_folders(spool.path("jobs", load.job, "in") for load in good if _is_apart(load))
    return [load.job for load in good], again


def _is_apart(load: Load) -> bool:
    return load.description.get("protocol") == description.APART


def _name(spool: Spool, session: str, load: Load) -> bool:
    """Make the description, which the ticket holds, one of the job; False where that cannot be.

    Nothing is replaced by what is not durable yet: another session may have published the job.
    """
    if _is_apart(load):
        return False
    try:
        ticket = spool.incoming_path(load.job, session)
        files.link(ticket, spool.path("jobs", load.job, description.NAME))
        return True
    except OSError as error:
        # RACE: none; the session of a killed pass has left one.
        if error.errno not in (*CANNOT_LINK, errno.EEXIST):
            raise
        return False


def _texts(spool: Spool, load: Load) -> List[Tuple[files.Path, bytes]]:
    """Return what is to be written beside the inputs, where it is no link to the ticket."""
    kept = description.whole(load.description, load.script)
    found: List[Tuple[files.Path, bytes]] = []
    if _is_apart(load):
        found.append((spool.path("jobs", load.job, "script"), load.script))
    return [*found, (spool.path("jobs", load.job, description.NAME), files.to_json(kept))]


def _furnish(spool: Spool, store: Store, session: str, load: Load) -> List[Tuple[bytes, bytes]]:
    """Check a job, write its description into its ticket and link its inputs; return copies still
    to be synced and renamed."""
    kept = description.whole(load.description, load.script)
    found = description.parse(kept)
    if found.job != load.job or [i.size for i in found.inputs] != [n for _, n in load.inputs]:
        raise DescriptionError("the description does not belong to what was staged")
    try:
        files.rewrite(spool.incoming_path(load.job, session), files.to_json(kept))
    except FileNotFoundError:
        raise NotStaged("the job is not being staged by this session") from None
    copies = []
    folder = spool.job_folder(load.job)
    if _is_apart(load):
        files.make_folder(files.join(folder, "in"))
    for number, (key, size) in enumerate(load.inputs):
        final = found.input_path(folder, number)
        if not key:
            if _is_apart(load):
                files.move(spool.input_path(load.job, number), final)
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
