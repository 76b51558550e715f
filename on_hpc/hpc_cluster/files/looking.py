"""Looking: what has a name, what a file holds, and when a disk's word may be believed.

Nothing here changes a disk. That something is not there is never concluded from one look, nor from
a disk that fails (PASSING).
"""

import contextlib
import errno
import os
import stat
from typing import Any, Callable, Iterable, Iterator, List, Optional, Set, Tuple, TypeVar, Union

from hpc_cluster import effects

Path = Union[str, bytes]
Name = TypeVar("Name", str, bytes)
Result = TypeVar("Result")

BLOCK = 1 << 20
"""So many bytes are read or written at once."""

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


def read_bytes(path: Path, limit: int = 64 << 20) -> bytes:
    """Return the content of a regular file of at most `limit` bytes.

    Raises OSError: EINVAL when it is no regular file (a FIFO is never waited for), EFBIG when it is
    longer.
    """
    descriptor = _open_regular(path)
    try:
        size = os.fstat(descriptor).st_size
        data = os.read(descriptor, min(max(size, 1 << 12), limit) + 1)
        block = data
        while block and len(data) <= limit:
            block = os.read(descriptor, min(len(data), limit - len(data)) + 1)
            data += block
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
    return data


def lines(path: Path, begin: int = 0) -> Iterator[bytes]:
    """Yield the lines of a regular file from a place on, each with its newline if it has one.

    Raises OSError: EINVAL when it is no regular file, ESTALE when it ends before its end.
    """
    descriptor = _open_regular(path)
    try:
        size, rest = os.fstat(descriptor).st_size, b""
        while True:
            block = os.pread(descriptor, BLOCK, begin)
            begin += len(block)
            *whole, rest = (rest + block).split(b"\n")
            for one in whole:
                yield one + b"\n"
            if not block:
                break
        if begin < size:
            raise OSError(errno.ESTALE, "it was cut by somebody else", path)
        if rest:
            yield rest
    finally:
        os.close(descriptor)


def read_spans(path: Path, spans: Iterable[Tuple[int, int]]) -> Iterator[bytes]:
    """Yield the bytes of a regular file between each two places.

    Raises OSError: EINVAL when it is no regular file, ESTALE when it is shorter.
    """
    descriptor = _open_regular(path)
    try:
        for begin, end in spans:
            data = os.pread(descriptor, end - begin, begin)
            while len(data) < end - begin:
                block = os.pread(descriptor, end - begin - len(data), begin + len(data))
                if not block:
                    raise OSError(errno.ESTALE, "it was cut by somebody else", path)
                data += block
            yield data
    finally:
        os.close(descriptor)


def read_span(path: Path, begin: int, end: int) -> bytes:
    """Return the bytes of a regular file between two places. Raises OSError as `read_spans`."""
    (data,) = read_spans(path, [(begin, end)])
    return data


def _open_regular(path: Path) -> int:
    """Open a file for reading. Raises OSError: EINVAL when it is no regular file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


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
        try:
            return os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            if not is_second:
                refresh(path)
    return None


def exists(path: Path) -> bool:
    """Tell whether anything, a dangling link too, has this name. Raises OSError as `look`."""
    return look(path) is not None


def missing(paths: Iterable[Name]) -> Set[Name]:
    """Return those of many paths of which `exists` says no: the two looks of many at once.

    Between them each folder is opened once. Of a path of which the file system does not say that it
    is missing, `exists` tells why.
    """
    left = set(paths)
    for is_second in (False, True):
        if is_second:
            for path in {os.path.dirname(path): path for path in left}.values():
                refresh(path)
        left = {path for path in left if _is_missing(path)}
    return left


def _is_missing(path: Path) -> bool:
    """Tell whether one look at a name finds nothing."""
    try:
        os.lstat(path)
    except OSError as error:
        return isinstance(error, (FileNotFoundError, NotADirectoryError))
    return False


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
        folder = os.path.dirname(to_bytes(path) if isinstance(path, str) else path) or b"."
        os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


def mode_of(path: Path, *, follow: bool = True, fresh: bool = False) -> int:
    """Return the mode of what has a name, 0 where two looks say that it leads to nothing.

    `fresh`: its folder was opened just now, as `refresh` would between the two.

    Raises OSError for what may pass: of that nothing may be concluded.
    """
    for is_second in (False, True):
        try:
            return (os.stat if follow else os.lstat)(path).st_mode
        except OSError as error:
            if error.errno in PASSING:
                raise
        if not is_second and not fresh:
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
