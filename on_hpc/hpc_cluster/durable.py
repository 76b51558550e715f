"""Making durable: what was written, and the names it has, are on the disk before anyone is told.

A few files are synced one by one. Many, on however many file systems, are made durable by one
syncfs for each, where that is known to write all and to tell of what failed, and by threads
elsewhere; so the cost does not grow with the number of jobs.
"""

import errno
import os
from typing import Callable, Iterable, List, Sequence, Union

from hpc_cluster import effects, threads

Path = Union[str, bytes]

FEW = 8
"""Up to so many files are synced one by one; above, the file system is synced once."""

UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
"""What fsync answers for a folder on file systems that do not need it, or know nothing of it."""

SYNCED = (b"ext2", b"ext3", b"ext4", b"xfs", b"f2fs", b"tmpfs", b"nfs", b"nfs4", b"ceph")
"""File systems that are synced as a whole. There a syncfs writes all data and all names, and tells
of what failed; of others that is not known (Lustre's leaves the servers' journals alone, FUSE's may
do nothing), so their files are synced one by one."""


def sync_descriptor(descriptor: int) -> None:
    """fsync an open file."""
    effects.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        effects.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make the content of a closed file durable."""
    # A FIFO is never waited for.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        effects.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_files(paths: Sequence[Path]) -> bool:
    """Make many closed files durable, on any number of file systems.

    A few are synced one by one; many by one syncfs for each file system, or by threads where that
    does not suffice. Tell whether whole file systems were synced, and so all names as well.
    """
    if len(paths) <= FEW:
        for path in paths:
            sync_file(path)
        return False
    if _sync_file_systems(paths):
        return True
    _sync_in_threads(sync_file, paths)
    return False


def _sync_file_systems(paths: Sequence[Path]) -> bool:
    """syncfs, once for each file system that holds one of the paths; False: not all can do it."""
    devices = {os.lstat(path).st_dev: path for path in paths}
    if not all(_can_syncfs(device) for device in devices):
        return False
    for path in devices.values():
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            effects.syncfs(descriptor)
        finally:
            os.close(descriptor)
    return True


def _can_syncfs(device: int, mounts: str = "/proc/self/mountinfo") -> bool:
    """Tell whether one syncfs makes all files of a device durable."""
    wanted = f"{os.major(device)}:{os.minor(device)}".encode("ascii")
    try:
        with open(mounts, "rb") as file:
            lines = [line.split() for line in file]
    except OSError:
        return False
    found = [line[line.index(b"-") + 1] for line in lines if line[2] == wanted]
    return effects.has_syncfs() and bool(found) and found[0] in SYNCED


class FileSystem:
    """The file system of a folder, to be synced as a whole and often.

    It is held open: what could not be written since is told to this descriptor, even where another
    process asked before and was told as well.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.can_sync = _can_syncfs(os.fstat(self._descriptor).st_dev)
        """Whether `sync` may be called; elsewhere files are synced by their paths."""

    def sync(self) -> None:
        """Make all that was written to it durable. Raises OSError."""
        effects.syncfs(self._descriptor)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)


def _sync_in_threads(sync: Callable[[Path], None], paths: Sequence[Path]) -> None:
    failures: List[OSError] = []

    def work(part: Sequence[Path]) -> None:
        try:
            for path in part:
                sync(path)
        except OSError as error:
            failures.append(error)

    parts = [paths[i::FEW] for i in range(FEW)]
    begun = []
    for part in parts:
        try:
            begun.append(threads.start(work, "sync", part))
        except OSError:
            work(part)
    for thread in begun:
        thread.join()
    if failures:
        raise failures[0]


def sync_folders(folders: Iterable[Path]) -> None:
    """Make the names in many folders durable."""
    distinct = sorted({_bytes(folder) for folder in folders})
    if len(distinct) <= FEW:
        for folder in distinct:
            sync_folder(folder)
    elif not _sync_file_systems(distinct):
        _sync_in_threads(sync_folder, distinct)


def _bytes(path: Path) -> bytes:
    return path if isinstance(path, bytes) else path.encode("utf-8", "surrogateescape")
