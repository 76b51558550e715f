"""Writing: what a file holds, one file at a time or a whole batch.

A batch writes all its files, makes them durable together (`durable`), renames all, and syncs each
folder once.
"""

import errno
import os
from typing import Iterable, Sequence, Tuple, Union

from hpc_cluster import durable, effects
from hpc_cluster.files.looking import BLOCK, Path, exists, join, to_bytes
from hpc_cluster.files.naming import rename


def write_new(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file in place, made anew or emptied first; not yet durable."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    descriptor = effects.open(path, flags, mode)
    try:
        write_all(descriptor, data)
    finally:
        effects.close(descriptor)


def rewrite(path: Path, data: bytes) -> None:
    """Empty an existing file and write it in place; not yet durable. Raises FileNotFoundError."""
    descriptor = effects.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW)
    try:
        write_all(descriptor, data)
    finally:
        effects.close(descriptor)


def open_partial(path: Path, mode: int = 0o600) -> int:
    """Open a file that arrives in pieces, for reading and writing; made when it is missing."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    return effects.open(path, flags, mode)


def close(descriptor: int) -> None:
    """Close a file that was written. Raises OSError: a network file system reports ENOSPC here."""
    effects.close(descriptor)


def write_all(descriptor: int, data: Union[bytes, bytearray]) -> None:
    """Write all bytes where an open file stands; not yet durable."""
    view = memoryview(data)
    while view:
        view = view[effects.write(descriptor, view) :]


def write_at(descriptor: int, data: Union[bytes, bytearray, memoryview], offset: int) -> None:
    """Write all bytes at an offset of an open file; not yet durable."""
    view, done = memoryview(data), 0
    while done < len(view):
        done += effects.pwrite(descriptor, view[done:], offset + done)


def truncate(descriptor: int, size: int) -> None:
    """Cut an open file to a size."""
    effects.ftruncate(descriptor, size)


def append(path: Path, data: bytes) -> None:
    """Append lines to a file durably, by one write if it takes them all; made where missing.

    A line that was cut, as by a full disk, stays by itself.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    is_new = not exists(path)
    descriptor = effects.open(path, flags, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            data = b"\n" + data
        write_all(descriptor, data)
        effects.fsync(descriptor)
    finally:
        effects.close(descriptor)
    if is_new:
        durable.sync_folder(os.path.dirname(join(path)))


def write_end(path: Path, end: int, pieces: Iterable[bytes], kept: int = 0) -> None:
    """Write bytes at the end of what counts in a file, durably.

    What stands behind that place and behind `kept` is cut off first. Raises OSError; ESTALE when
    the file is shorter than that.
    """
    descriptor = effects.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        size = os.fstat(descriptor).st_size
        if size < end:
            raise OSError(errno.ESTALE, "it was cut by somebody else", path)
        if size > max(end, kept):
            effects.ftruncate(descriptor, max(end, kept))
        ready = bytearray()
        for piece in pieces:
            ready += piece
            if len(ready) >= BLOCK:
                write_at(descriptor, ready, end)
                end += len(ready)
                ready = bytearray()
        write_at(descriptor, ready, end)
        effects.fsync(descriptor)
    finally:
        effects.close(descriptor)


def open_append(path: Path) -> int:
    """Return a descriptor that appends to a file, made where it is missing (a stream, a log)."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    return effects.open(path, flags, 0o600)


def overwrite(path: Path, data: bytes) -> None:
    """Write bytes over the start of an existing file, in place and durably; needs no new space."""
    descriptor = effects.open(path, os.O_WRONLY | os.O_NOFOLLOW)
    try:
        write_at(descriptor, data, 0)
        effects.fsync(descriptor)
    finally:
        effects.close(descriptor)


def reserve_all(contents: Sequence[Tuple[Path, bytes]], size: int) -> None:
    """Make many files that each own `size` bytes of disk and begin with their data, durably."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW
    for path, data in contents:
        descriptor = effects.open(path, flags, 0o600)
        try:
            try:
                effects.fallocate(descriptor, size)
            except OSError as error:
                # RACE: none; some network file systems cannot reserve. Zeros take the space too.
                if error.errno not in durable.UNSUPPORTED:
                    raise
                write_at(descriptor, bytes(size), 0)
            write_at(descriptor, data, 0)
        finally:
            effects.close(descriptor)
    durable.sync_files([path for path, _ in contents])
    durable.sync_folders(os.path.dirname(join(path)) for path, _ in contents)


def fill(path: Path, data: bytes, mode: int, group: int = -1) -> None:
    """Make an existing file hold exactly `data`, in the space it has; not yet durable.

    `group` is given to the file where this process may do so.
    """
    descriptor = effects.open(path, os.O_WRONLY | os.O_NOFOLLOW)
    try:
        write_at(descriptor, data, 0)
        effects.ftruncate(descriptor, len(data))
        give(descriptor, group)
        effects.fchmod(descriptor, mode)
    finally:
        effects.close(descriptor)


def give(descriptor: int, group: int) -> None:
    """Give an open file to a group, where this process may do so."""
    if group in (-1, os.fstat(descriptor).st_gid):
        return
    try:
        effects.fchown(descriptor, -1, group)
    except OSError as error:
        # RACE: none; only a member of the group may give it away.
        if error.errno != errno.EPERM:
            raise


def replace_all(contents: Sequence[Tuple[Path, bytes]], suffix: str = ".new") -> None:
    """Replace many files durably, each atomically: old or new content, never a mixture.

    `suffix` marks the temporary names beside the files; whoever may write at the same time uses
    another one.
    """
    temporary = [join(path, b"")[:-1] + to_bytes(suffix) for path, _ in contents]
    for name, (_, data) in zip(temporary, contents):
        write_new(name, data)
    durable.sync_files(temporary)
    for name, (path, _) in zip(temporary, contents):
        rename(name, path)
    durable.sync_folders(os.path.dirname(name) for name in temporary)


def replace(path: Path, data: bytes, suffix: str = ".new") -> None:
    """Replace one file durably and atomically."""
    replace_all([(path, data)], suffix)


def show(path: Path, data: bytes, suffix: str = ".new") -> None:
    """Replace one file atomically, and not durably: what may be forgotten in a power cut."""
    temporary = join(path, b"")[:-1] + to_bytes(suffix)
    write_new(temporary, data)
    rename(temporary, path)


def show_to(temporary: Path, path: Path, data: bytes, mode: int, group: int) -> None:
    """Replace a file that others read atomically, by way of another name, and not durably.

    `group` is given to it where this process may do so.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    descriptor = effects.open(temporary, flags, mode)
    try:
        write_all(descriptor, data)
        give(descriptor, group)
    finally:
        effects.close(descriptor)
    rename(temporary, path)


def copy(source: Path, target: Path, mode: int = 0o600) -> None:
    """Copy a regular file's content to a new name; not yet durable."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    with open(source, "rb") as reader:
        descriptor = effects.open(target, flags, mode)
        try:
            block = reader.read(1 << 20)
            while block:
                write_all(descriptor, block)
                block = reader.read(1 << 20)
        finally:
            effects.close(descriptor)


def server_now(folder: Path, name: str) -> float:
    """Return the file server's clock, in seconds: the ctime of a probe file changed just now."""
    probe = join(folder, name)
    try:
        effects.utime(probe)  # needs no space, unlike writing
    except FileNotFoundError:
        write_new(probe, b"")
    return os.stat(probe).st_ctime
