"""Slots: the places of pilots. A slot is a ticket, too.

    slots/K/free     nobody holds slot K
    slots/K/P        pilot P does, from before it is submitted until it is positively dead

One rename takes a slot or frees it, so there is one pilot in a slot, however many service hosts
look after the workspace. A slot is made as `slots/K.S/free` and renamed to `slots/K`, which fails
where K exists.
"""

import errno
import os
from typing import Dict, Optional

from hpc_cluster import durable, files
from hpc_cluster.spool import Spool
from hpc_cluster.ticket import is_random

FREE = "free"


def take(spool: Spool, maximum: int, pilot: str) -> Optional[int]:
    """Free to held: take one of the first `maximum` slots; None when so many are held.

    Slots beyond them, which another policy may use, count as well.
    """
    if len(holders(spool)) >= maximum:
        return None
    for slot in range(maximum):
        if not files.exists(spool.path("slots", str(slot))):
            _make(spool, slot, pilot)
        source, target = _path(spool, slot, FREE), _path(spool, slot, pilot)
        if files.move(source, target):
            durable.sync_folder(os.path.dirname(target))
            return slot
    return None


def free(spool: Spool, slot: int, pilot: str) -> bool:
    """Held to free: the pilot is positively dead, or never was. False: it did not hold it."""
    moved = files.move(_path(spool, slot, pilot), _path(spool, slot, FREE))
    if moved:
        durable.sync_folder(spool.path("slots", str(slot)))
    return moved


def holders(spool: Spool) -> Dict[int, str]:
    """Return which pilot holds which slot."""
    held = {}
    for name in files.names(spool.path("slots")):
        if name.isdigit():
            pilots = [p for p in files.names(spool.path("slots", name)) if is_random(p)]
            held.update({int(name): pilot for pilot in pilots})
    return held


def _path(spool: Spool, slot: int, name: str) -> bytes:
    return spool.path("slots", str(slot), name)


def _make(spool: Spool, slot: int, nonce: str) -> None:
    """Make slot K, free, unless another host does so first."""
    draft = spool.path("slots", f"{slot}.{nonce}")
    files.make_folder(draft)
    files.write_new(files.join(draft, FREE), b"")
    durable.sync_file(files.join(draft, FREE))
    durable.sync_folder(draft)
    try:
        files.rename(draft, spool.path("slots", str(slot)))
    except OSError as error:
        # RACE: another host made it between our look and our rename.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        files.remove_tree(draft)
    durable.sync_folder(spool.path("slots"))
