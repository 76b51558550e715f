"""Naming: giving a thing another name or a second one, taking names away, folders, and times.

No new name is durable before its folder is synced. After a failed rename the target is looked for,
because a network file system may do the work and report an error (rename(2), BUGS).
"""

import errno
import os
import stat
from typing import Iterable, List

from hpc_cluster import effects
from hpc_cluster.files.looking import GONE, Name, Path, exists, is_folder, join, missing, mode_of


def rename(source: Path, target: Path) -> None:
    """Rename; not yet durable. Raises OSError."""
    effects.rename(source, target)


def move(source: Path, target: Path) -> bool:
    """Rename a unique source to a unique target and tell whether the target is there now.

    False: the source was already gone and the target is not there, so somebody else moved it.
    Raises OSError when the source is still there and cannot be moved.
    """
    try:
        effects.rename(source, target)
        return True
    except OSError as error:
        # RACE: a network file system may have renamed and still report an error.
        if exists(target):
            return True
        if error.errno in GONE and not exists(source):
            return False
        raise


def link(source: Path, target: Path) -> None:
    """Make a hard link. Raises OSError (FileExistsError, EXDEV, EMLINK, EPERM, ENOTSUP)."""
    try:
        effects.link(source, target)
    except FileExistsError:
        # RACE: a network file system made it, lost the answer, and asked again.
        if not os.path.samestat(os.lstat(source), os.lstat(target)):
            raise


def symlink(text: Path, path: Path) -> None:
    """Make a symbolic link. Raises OSError."""
    try:
        effects.symlink(text, path)
    except FileExistsError:
        # RACE: a network file system made it, lost the answer, and asked again.
        if not stat.S_ISLNK(mode_of(path, follow=False)) or os.readlink(join(path)) != join(text):
            raise


def unlink(path: Path, *, looked: bool = False) -> bool:
    """Remove a name; False when it was not there.

    `looked`: `missing` did not find it just now, so that one look more is enough.
    """
    try:
        effects.unlink(path)
        return True
    except OSError as error:
        # RACE: another cleaner, or the same one before it was killed, was here first.
        if error.errno in GONE and (looked or not exists(path)):
            return False
        raise


def unlink_all(paths: Iterable[Name]) -> None:
    """Remove many names, of which some may not be there."""
    gone: List[Name] = []
    for path in paths:
        try:
            effects.unlink(path)
        except OSError as error:
            if error.errno not in GONE:
                raise
            gone.append(path)
    for path in set(gone) - missing(gone):
        # RACE: a file server that said otherwise just now.
        unlink(path)


def make_folder(path: Path) -> bool:
    """Make a folder of mode 0700; False when it was there already."""
    try:
        effects.mkdir(path)
        return True
    except FileExistsError:
        return False


def make_folders(path: Path) -> None:
    """Make a folder and those above it that are missing, all of mode 0700."""
    parent = os.path.dirname(path)
    if not is_folder(path) and parent and parent != path:
        make_folders(parent)
        make_folder(path)


def remove_folder(path: Path) -> bool:
    """Remove an empty folder; False when it is missing or not empty."""
    try:
        effects.rmdir(path)
        return True
    except OSError as error:
        # RACE: somebody put something in, or removed it first; both are theirs to decide.
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        if error.errno in GONE and not exists(path):
            return False
        raise


def remove_tree(path: Path) -> None:
    """Remove a folder and all in it, as far as that goes; what is left is tried again later."""
    effects.rmtree(path)


def touch(path: Path) -> None:
    """Set a file's times to now by the file server's clock."""
    effects.utime(path)


def set_times(path: Path, accessed_s: int, modified_s: int) -> None:
    """Set a file's times, in whole seconds, never a link's end."""
    effects.utime(path, (accessed_s, modified_s))


def change_mode(path: Path, mode: int) -> None:
    """chmod, never through a link's end that lies elsewhere (our own files only)."""
    effects.chmod(path, mode)
