"""Every effect on a disk, on both sides, goes through this module.

The rules of crash safety live here once: write, fsync, rename, fsync the folder, and only then
tell anyone. Functions move whole batches, so that the cost of durability does not grow with the
number of jobs: a batch writes all its files, makes them durable together, renames all, and syncs
each folder once. After a failed rename the target is looked for, because a network file system may
do the work and report an error (rename(2), BUGS).

Paths are str or bytes; names that came from users are bytes on the cluster (`to_bytes`), because
Python 3.6 in a C locale cannot encode them otherwise.
"""

import ctypes
import errno
import json
import os
import shutil
import stat
import threading
from typing import Any, Dict, Iterable, List, Optional, Sequence, Set, Tuple, Union

Path = Union[str, bytes]

FEW = 8
"""Up to so many files are synced one by one; above, the file system is synced once."""

UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
"""What fsync answers for a folder on file systems that do not need it, or know nothing of it."""

GONE = (errno.ENOENT, errno.ESTALE)


def to_bytes(name: str) -> bytes:
    """Return the bytes of a name as it travels in JSON (UTF-8 with surrogate escapes)."""
    return name.encode("utf-8", "surrogateescape")


def from_bytes(name: bytes) -> str:
    """Return the JSON form of a file's name."""
    return name.decode("utf-8", "surrogateescape")


def join(folder: Path, *names: Path) -> bytes:
    """Join path elements of either type into a bytes path."""
    return os.path.join(*[to_bytes(p) if isinstance(p, str) else p for p in (folder,) + names])


# ---- reading ---------------------------------------------------------------------------------


def read_bytes(path: Path, limit: int = 64 << 20) -> bytes:
    """Return the content of a regular file of at most `limit` bytes.

    Raises OSError: EINVAL when it is no regular file (a FIFO is never waited for), EFBIG when it is
    longer.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
    return data


def read_json(path: Path, limit: int = 64 << 20) -> Any:
    """Return the JSON document in a file. Raises OSError, ValueError."""
    return json.loads(read_bytes(path, limit).decode("utf-8"))


def to_json(value: Any) -> bytes:
    """Return a value as one line of ASCII JSON, sorted, with a newline."""
    return (json.dumps(value, sort_keys=True) + "\n").encode("ascii")


def open_inside(folder: Path, *names: Path) -> int:
    """Open a regular file below a folder for reading, and follow no link on the way down.

    Raises OSError: ELOOP or ENOTDIR for a link, EINVAL when it is no regular file (a FIFO is never
    waited for) or when a name is none.
    """
    parts = [to_bytes(name) if isinstance(name, str) else name for name in names]
    for part in parts:
        if part in (b"", b".", b"..") or b"/" in part or b"\0" in part:
            raise OSError(errno.EINVAL, "not a name", from_bytes(part))
    common = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for number, part in enumerate(parts, 1):
        kind = os.O_NONBLOCK if number == len(parts) else os.O_DIRECTORY
        try:
            inner = os.open(part, common | kind, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = inner
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", from_bytes(parts[-1]))
    return descriptor


def names(folder: Path) -> List[str]:
    """Return the sorted names in a folder; a missing folder has none."""
    try:
        return sorted(
            from_bytes(n)
            for n in os.listdir(to_bytes(folder) if isinstance(folder, str) else folder)
        )
    except FileNotFoundError:
        return []


def exists(path: Path) -> bool:
    """Tell whether anything, a dangling link too, has this name."""
    return os.path.lexists(path)


# ---- making durable --------------------------------------------------------------------------


def sync_descriptor(descriptor: int) -> None:
    """fsync an open file."""
    os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make the content of a closed file durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _syncfs_function() -> Any:
    """Return libc's syncfs where it reports errors (Linux >= 5.8), else None."""
    try:
        release = tuple(int(n) for n in os.uname().release.split("-")[0].split(".")[:2])
        return ctypes.CDLL(None, use_errno=True).syncfs if release >= (5, 8) else None
    except (ValueError, OSError, AttributeError):
        return None


_syncfs = _syncfs_function()


def sync_files(paths: Sequence[Path]) -> None:
    """Make many closed files durable, on any number of file systems.

    A few are synced one by one; many by one syncfs for each file system, or by threads where that
    cannot report errors.
    """
    if len(paths) <= FEW:
        for path in paths:
            sync_file(path)
    elif _syncfs is None:
        _sync_in_threads(paths)
    else:
        _sync_file_systems(paths)


def _sync_file_systems(paths: Sequence[Path]) -> None:
    """syncfs, once for each file system that holds one of the paths."""
    synced: Set[int] = set()
    for path in paths:
        device = os.lstat(path).st_dev
        if device in synced:
            continue
        synced.add(device)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if _syncfs(descriptor) != 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code), path)
        finally:
            os.close(descriptor)


def _sync_in_threads(paths: Sequence[Path]) -> None:
    failures: List[OSError] = []

    def work(part: Sequence[Path]) -> None:
        try:
            for path in part:
                sync_file(path)
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(paths[i::FEW],)) for i in range(FEW)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def sync_folders(folders: Iterable[Path]) -> None:
    """Make the names in many folders durable."""
    distinct = sorted({to_bytes(f) if isinstance(f, str) else f for f in folders})
    if len(distinct) > FEW and _syncfs is not None:
        _sync_file_systems(distinct)
    else:
        for folder in distinct:
            sync_folder(folder)


# ---- writing ---------------------------------------------------------------------------------


def write_new(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file in place, made anew or emptied first; not yet durable."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def open_partial(path: Path) -> int:
    """Open a file that arrives in pieces, for reading and writing; made when it is missing."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, 0o600)


def write_at(descriptor: int, data: Union[bytes, bytearray], offset: int) -> None:
    """Write all bytes at an offset of an open file; not yet durable."""
    view, done = memoryview(data), 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], offset + done)


def truncate(descriptor: int, size: int) -> None:
    """Cut an open file to a size."""
    os.ftruncate(descriptor, size)


def append(path: Path, data: bytes) -> None:
    """Append bytes to a file by one write, durably."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_append(path: Path) -> int:
    """Return a descriptor that appends to a file, made where it is missing (a stream, a log)."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, 0o600)


def overwrite(path: Path, data: bytes) -> None:
    """Write bytes over the start of an existing file, in place and durably; needs no new space."""
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, data, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reserve_all(contents: Sequence[Tuple[Path, bytes]], size: int) -> None:
    """Make many files that each own `size` bytes of disk and begin with their data, durably."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    for path, data in contents:
        descriptor = os.open(path, flags, 0o600)
        try:
            try:
                os.posix_fallocate(descriptor, 0, size)
            except OSError as error:
                # RACE: none; some network file systems cannot reserve. Zeros take the space too.
                if error.errno not in UNSUPPORTED:
                    raise
                os.pwrite(descriptor, bytes(size), 0)
            os.pwrite(descriptor, data, 0)
        finally:
            os.close(descriptor)
    sync_files([path for path, _ in contents])
    sync_folders(os.path.dirname(join(path)) for path, _ in contents)


def fill(path: Path, data: bytes, mode: int, group: int = -1) -> None:
    """Make an existing file hold exactly `data`, in the space it has; not yet durable.

    `group` is given to the file where this process may do so.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        view, done = memoryview(data), 0
        while done < len(view):
            done += os.pwrite(descriptor, view[done:], done)
        os.ftruncate(descriptor, len(data))
        try:
            os.fchown(descriptor, -1, group)
        except OSError as error:
            # RACE: none; only a member of the group may give it away.
            if error.errno != errno.EPERM:
                raise
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def replace_all(contents: Sequence[Tuple[Path, bytes]], suffix: str = ".new") -> None:
    """Replace many files durably, each atomically: old or new content, never a mixture.

    `suffix` marks the temporary names beside the files; whoever may write at the same time uses
    another one.
    """
    temporary = [join(path, b"")[:-1] + to_bytes(suffix) for path, _ in contents]
    for name, (_, data) in zip(temporary, contents):
        write_new(name, data)
    sync_files(temporary)
    for name, (path, _) in zip(temporary, contents):
        rename(name, path)
    sync_folders(os.path.dirname(name) for name in temporary)


def replace(path: Path, data: bytes, suffix: str = ".new") -> None:
    """Replace one file durably and atomically."""
    replace_all([(path, data)], suffix)


def show(path: Path, data: bytes, suffix: str = ".new") -> None:
    """Replace one file atomically, and not durably: what may be forgotten in a power cut."""
    temporary = join(path, b"")[:-1] + to_bytes(suffix)
    write_new(temporary, data)
    rename(temporary, path)


# ---- names -----------------------------------------------------------------------------------


def rename(source: Path, target: Path) -> None:
    """Rename; not yet durable. Raises OSError."""
    os.rename(source, target)


def move(source: Path, target: Path) -> bool:
    """Rename a unique source to a unique target and tell whether the target is there now.

    False: the source was already gone and the target is not there, so somebody else moved it.
    Raises OSError when the source is still there and cannot be moved.
    """
    try:
        os.rename(source, target)
        return True
    except OSError as error:
        # RACE: a network file system may have renamed and still report an error.
        if exists(target):
            return True
        if error.errno in GONE:
            return False
        raise


def link(source: Path, target: Path) -> None:
    """Make a hard link. Raises OSError (FileExistsError, EXDEV, EMLINK, EPERM, ENOTSUP)."""
    os.link(source, target, follow_symlinks=False)


def symlink(text: Path, path: Path) -> None:
    """Make a symbolic link. Raises OSError."""
    os.symlink(text, path)


def unlink(path: Path) -> bool:
    """Remove a name; False when it was not there."""
    try:
        os.unlink(path)
        return True
    except OSError as error:
        # RACE: another cleaner, or the same one before it was killed, was here first.
        if error.errno in GONE:
            return False
        raise


def make_folder(path: Path) -> bool:
    """Make a folder of mode 0700; False when it was there already."""
    try:
        os.mkdir(path, 0o700)
        return True
    except FileExistsError:
        return False


def make_folders(path: Path) -> None:
    """Make a folder and those above it that are missing, all of mode 0700."""
    parent = os.path.dirname(path)
    if not os.path.isdir(path) and parent and parent != path:
        make_folders(parent)
        make_folder(path)


def remove_folder(path: Path) -> bool:
    """Remove an empty folder; False when it is missing or not empty."""
    try:
        os.rmdir(path)
        return True
    except OSError as error:
        # RACE: somebody put something in, or removed it first; both are theirs to decide.
        if error.errno in GONE + (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise


def remove_tree(path: Path) -> None:
    """Remove a folder and all in it, as far as that goes; what is left is tried again later."""
    shutil.rmtree(path, ignore_errors=True)


def touch(path: Path) -> None:
    """Set a file's times to now by the file server's clock."""
    os.utime(path)


def set_times(path: Path, accessed_s: int, modified_s: int) -> None:
    """Set a file's times, in whole seconds, never a link's end."""
    os.utime(path, (accessed_s, modified_s), follow_symlinks=False)


def change_mode(path: Path, mode: int) -> None:
    """chmod, never through a link's end that lies elsewhere (our own files only)."""
    os.chmod(path, mode)


def copy(source: Path, target: Path, mode: int = 0o600) -> None:
    """Copy a regular file's content to a new name; not yet durable."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(source, "rb") as reader, os.fdopen(os.open(target, flags, mode), "wb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)


def server_now(folder: Path, name: str) -> float:
    """Return the file server's clock, in seconds: the ctime of a probe file changed just now."""
    probe = join(folder, name)
    try:
        os.utime(probe)  # needs no space, unlike writing
    except FileNotFoundError:
        write_new(probe, b"")
    return os.stat(probe).st_ctime


def merge(*parts: Optional[Dict[str, Any]]) -> Dict[str, Any]:
    """Return mappings laid over each other, later ones winning, None ones skipped."""
    result: Dict[str, Any] = {}
    for part in parts:
        result.update(part or {})
    return result
