"""Every effect on a disk, on both sides, goes through this module, which makes it by `effects`.

The rules of crash safety live here once: write, fsync, rename, fsync the folder, and only then
tell anyone. Functions move whole batches: a batch writes all its files, makes them durable together
(`durable`), renames all, and syncs each folder once. After a failed rename the target is looked
for, because a network file system may do the work and report an error (rename(2), BUGS).

Paths are str or bytes; names that came from users are bytes on the cluster (`to_bytes`), because
Python 3.6 in a C locale cannot encode them otherwise.
"""

import contextlib
import errno
import json
import os
import stat
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, TypeVar, Union

from hpc_cluster import durable, effects

Path = Union[str, bytes]
Result = TypeVar("Result")

GONE = (errno.ENOENT, errno.ESTALE)

PASSING = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.ESTALE,
    errno.EROFS,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.EAGAIN,
    errno.EINTR,
    errno.EMLINK,
    errno.ENOLCK,
    errno.ETIMEDOUT,
    errno.EDEADLK,
    errno.ETXTBSY,
    errno.EBADMSG,
    errno.EUCLEAN,
    errno.EREMOTEIO,
    errno.EPROTO,
    errno.ENOBUFS,
    errno.ENOTCONN,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.ECONNABORTED,
    errno.ESHUTDOWN,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
)
"""Errors of a disk, a file server or a machine that may pass by themselves: nobody's job has caused
them, so what met one is tried again."""


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
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        data = os.read(descriptor, min(max(found.st_size, 1 << 12), limit) + 1)
        block = data
        while block and len(data) <= limit:
            block = os.read(descriptor, min(len(data), limit - len(data)) + 1)
            data += block
    finally:
        os.close(descriptor)
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


def look(path: Path) -> Optional[os.stat_result]:
    """Return what has a name, a dangling link too; None when nothing has, in two looks.

    That a file is gone often means that a step was done, and must never be concluded from a disk
    that fails, nor from one look. Raises OSError when the file system does not say.
    """
    for is_second in (False, True):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return os.lstat(path)
        if not is_second:
            refresh(path)
    return None


def exists(path: Path) -> bool:
    """Tell whether anything, a dangling link too, has this name. Raises OSError as `look`."""
    return look(path) is not None


def twice(function: Callable[..., Result], *args: Any) -> Result:
    """Call a function that uses a disk, and where it is refused for good, once more.

    A refusal that somebody has to mend (no such file, no permission) is believed only when it comes
    again: file servers say such things for a moment, too. Raises OSError.
    """
    try:
        return function(*args)
    except OSError as error:
        if error.errno in PASSING:
            raise
    return function(*args)


def refresh(path: Path) -> None:
    """Open the folder of a path, which makes a network file system ask its server for names."""
    with contextlib.suppress(OSError):
        folder = os.path.dirname(join(path)) or b"."
        os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


def mode_of(path: Path, *, follow: bool = True) -> int:
    """Return the mode of what has a name, 0 where two looks say that it leads to nothing.

    Raises OSError for what may pass: of that nothing may be concluded.
    """
    for is_second in (False, True):
        try:
            return (os.stat if follow else os.lstat)(path).st_mode
        except OSError as error:
            if error.errno in PASSING:
                raise
        if not is_second:
            refresh(path)
    return 0


def is_folder(path: Path) -> bool:
    """Tell whether a path leads to a folder. Raises OSError for what may pass."""
    return stat.S_ISDIR(mode_of(path))


def permits(path: Path, mode: int) -> bool:
    """Tell whether this process may use a path so (os.R_OK). Raises OSError for what may pass."""
    try:
        effects.access(path, mode)
        return True
    except OSError as error:
        if error.errno in PASSING:
            raise
        return False


def real_path(path: str) -> str:
    """Return a path with all links followed, as far as they lead.

    Raises OSError where a link could not be looked at, which `os.path.realpath` takes for none.
    """
    real = os.path.realpath(path)
    part = real
    while part != os.path.dirname(part):
        if stat.S_ISLNK(mode_of(part, follow=False)) and mode_of(part):
            raise OSError(errno.EIO, os.strerror(errno.EIO), part)
        part = os.path.dirname(part)
    return real


# ---- writing ---------------------------------------------------------------------------------


def write_new(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file in place, made anew or emptied first; not yet durable."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    descriptor = effects.open(path, flags, mode)
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
    """Append bytes to a file durably, by one write if it takes them all; made where missing."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    is_new = not exists(path)
    descriptor = effects.open(path, flags, 0o600)
    try:
        write_all(descriptor, data)
        effects.fsync(descriptor)
    finally:
        effects.close(descriptor)
    if is_new:
        durable.sync_folder(os.path.dirname(join(path)))


def write_ends(contents: Sequence[Tuple[Path, int, bytes]]) -> None:
    """Write bytes at the end of what counts in each of many files, durably.

    Of each: its path, where that end is, the bytes. What stood behind is overwritten as far as they
    reach; a file where nothing counts yet is made. Names of new files are not durable yet.
    """
    for path, end, data in contents:
        made = 0 if end else os.O_CREAT
        descriptor = effects.open(path, os.O_WRONLY | os.O_NOFOLLOW | made, 0o600)
        try:
            if os.fstat(descriptor).st_size < end:
                raise OSError(errno.ESTALE, "it was cut by somebody else", path)
            write_at(descriptor, data, end)
        finally:
            effects.close(descriptor)
    durable.sync_files([path for path, _, _ in contents])


def open_append(path: Path) -> int:
    """Return a descriptor that appends to a file, made where it is missing (a stream, a log)."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    return effects.open(path, flags, 0o600)


def overwrite_all(contents: Sequence[Tuple[Path, bytes]]) -> None:
    """Write bytes over the start of existing files, in place and durably; needs no new space."""
    for path, data in contents:
        descriptor = effects.open(path, os.O_WRONLY | os.O_NOFOLLOW)
        try:
            write_at(descriptor, data, 0)
        finally:
            effects.close(descriptor)
    durable.sync_files([path for path, _ in contents])


def overwrite(path: Path, data: bytes) -> None:
    """Write bytes over the start of one existing file, as `overwrite_all` does."""
    overwrite_all([(path, data)])


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


# ---- names -----------------------------------------------------------------------------------


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


def unlink(path: Path) -> bool:
    """Remove a name; False when it was not there."""
    try:
        effects.unlink(path)
        return True
    except OSError as error:
        # RACE: another cleaner, or the same one before it was killed, was here first.
        if error.errno in GONE and not exists(path):
            return False
        raise


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


def merge(*parts: Optional[Dict[str, Any]]) -> Dict[str, Any]:
    """Return mappings laid over each other, later ones winning, None ones skipped."""
    result: Dict[str, Any] = {}
    for part in parts:
        result.update(part or {})
    return result
