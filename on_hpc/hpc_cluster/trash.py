"""The trash of a workspace: what is removed goes there by one rename, and is deleted later.

    trash/NAME   to be deleted, while nobody waits for something else
    kept/NAME    kept for an operator instead; `leftovers` moves it to trash/ when it is old

Where a name was used before, it gets a number: NAME.1, NAME.2, and so on.
"""

import errno
import os
import stat
from typing import Callable

from hpc_cluster import files
from hpc_cluster.workspace import Workspace


def discard(workspace: Workspace, path: bytes, *, keep: bool) -> None:
    """Move a folder of the workspace to trash/ (or kept/) under a name of its own."""
    name = files.from_bytes(os.path.basename(path))
    folder = "kept" if keep else "trash"
    for number in range(1000):
        target = workspace.path(folder, name + (f".{number}" if number else ""))
        try:
            files.rename(path, target)
            return
        except FileNotFoundError:
            # RACE: another purge, or this one before it was killed, was here first.
            return
        except OSError as error:
            # What was discarded before has this name.
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise


def empty(workspace: Workspace, go_on: Callable[[], bool]) -> bool:
    """Delete what lies in trash/ while `go_on` says so; tell whether it is empty now."""
    for name in sorted(os.listdir(workspace.path("trash"))):
        if not _delete(files.join(workspace.path("trash"), name), go_on):
            return False
    return True


def _delete(path: bytes, go_on: Callable[[], bool]) -> bool:
    """Delete a tree while `go_on` says so; False when something is left."""
    if not go_on():
        return False
    try:
        mode = os.lstat(path).st_mode
        if not stat.S_ISDIR(mode):
            files.unlink(path)
            return True
        # A job may have left folders that even their owner cannot list or empty.
        if mode & stat.S_IRWXU != stat.S_IRWXU:
            files.change_mode(path, 0o700)
        with os.scandir(path) as entries:
            there = list(entries)
        for entry in there:
            if entry.is_dir(follow_symlinks=False):
                _delete(entry.path, go_on)
            elif go_on():
                files.unlink(entry.path)
        return files.remove_folder(path)
    except OSError as error:
        # RACE: another pass empties the same trash. What cannot be deleted is tried again later.
        return error.errno in files.GONE
