"""The files of a dropbox as a client makes and reads them: whole, and never over another's.

It runs in users' programs, so it needs the standard library alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from functools import cache
from pathlib import Path
from typing import Any

ANSWER_BYTES = 64 << 20
"""Longest answer that is read; the service cuts the streams in it far below that."""


def is_there(path: Path) -> bool:
    """Tell whether anything has this name. Raises OSError where the file system does not say."""
    try:
        os.lstat(path)
        return True
    except (FileNotFoundError, NotADirectoryError):
        return False


def is_folder(path: Path) -> bool:
    """Tell whether a path leads to a folder. Raises OSError where the file system does not say."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def read_regular(path: Path) -> bytes:
    """Return the content of a file; a FIFO of that name is not waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(ANSWER_BYTES)


def write_anew(path: Path, data: bytes) -> None:
    """Make a complete, durable file of a name that is free. Raises FileExistsError.

    What fails leaves nothing; where even that fails, a dot file that a pass removes after a while.
    """
    temporary = path.with_name(f".hpcb-{os.urandom(8).hex()}.drop")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    mine: os.stat_result | None = None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
            mine = os.fstat(descriptor)
        rename_anew(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            _unlink(temporary)
        # RACE: it has its name, and only its first one could not be removed at once.
        if not isinstance(error, OSError) or mine is None or not _is_of(path, mine):
            raise


def rename_anew(source: Path, target: Path) -> None:
    """Rename to a name that is free. Raises FileExistsError, FileNotFoundError.

    Linux does it in one step; where the file system or the system cannot, a second link does, and
    for a moment the file has both names (a drop with two links is not taken).
    """
    renameat2 = _renameat2()
    if renameat2 is not None:
        import ctypes

        here, no_replace = -100, 1  # AT_FDCWD, RENAME_NOREPLACE (renameat2(2))
        ours = os.lstat(source)
        if renameat2(here, os.fsencode(source), here, os.fsencode(target), no_replace) == 0:
            return
        code = ctypes.get_errno()
        if code != errno.EEXIST and _is_of(target, ours):
            return  # RACE: a network file system may have renamed and still report an error.
        if code not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise OSError(code, os.strerror(code), str(source), None, str(target))
    os.link(source, target, follow_symlinks=False)
    _unlink(source)


def _is_of(path: Path, file: os.stat_result) -> bool:
    """Tell whether a name is that of a file, as far as that can be told."""
    try:
        return os.path.samestat(os.lstat(path), file)
    except OSError:
        return False


@cache
def _renameat2() -> Any:
    """Return libc's renameat2 where it has one, else None."""
    import ctypes  # whoever imports this module pays for what it loads

    try:
        return ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return None


def touch_anew(path: Path) -> None:
    """Make an empty file; one that is there says the same."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666))


def _unlink(path: Path) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass  # RACE: it has its new name already.
