"""Effects: whatever this project changes outside its own memory, on both sides, is one call here.

Each function is one call of the operating system, with its name, its arguments and its errors; none
decides anything. `durable` and `files` build on them what the rest of the project uses. So whoever
wants to stop the world before or after any effect, make it fail, or make it happen and yet report
failure, needs this module alone. Beside it there is one more way to the outside: a service host
reaches its cluster through the channels of `hpc_batch.hosts`.

Reading is not an effect, nor is a lock, which ends with its process. `access` stands here because
it needs libc as `syncfs` does.
"""

import errno
import functools
import os
from typing import TYPE_CHECKING, Any, Optional, Sequence, Union

if TYPE_CHECKING:
    import subprocess

Path = Union[str, bytes]
Data = Union[bytes, bytearray, memoryview]

# ---- files -----------------------------------------------------------------------------------


def open(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open a file to write to it, made or emptied as the flags say; return its descriptor."""
    return os.open(path, flags | os.O_CLOEXEC, mode)


def write(descriptor: int, data: Data) -> int:
    """Write where the file stands, or at its end; return how many bytes were taken."""
    return os.write(descriptor, data)


def pwrite(descriptor: int, data: Data, offset: int) -> int:
    """Write at an offset; return how many bytes were taken."""
    return os.pwrite(descriptor, data, offset)


def ftruncate(descriptor: int, size: int) -> None:
    """Give an open file a size."""
    os.ftruncate(descriptor, size)


def fallocate(descriptor: int, size: int) -> None:
    """Give an open file `size` bytes of disk."""
    os.posix_fallocate(descriptor, 0, size)


def close(descriptor: int) -> None:
    """Close a file that was written; a network file system reports a full disk here."""
    os.close(descriptor)


def fsync(descriptor: int) -> None:
    """Make an open file or folder durable."""
    os.fsync(descriptor)


@functools.lru_cache(maxsize=None)
def _libc() -> Any:
    """Return libc; None where it cannot be had."""
    import ctypes  # few processes need it, and all pay for what they load

    try:
        return ctypes.CDLL(None, use_errno=True)
    except OSError:
        return None


@functools.lru_cache(maxsize=None)
def _syncfs_function() -> Any:
    """Return libc's syncfs where it reports errors (Linux >= 5.8), else None."""
    try:
        release = tuple(int(n) for n in os.uname().release.split("-")[0].split(".")[:2])
        return _libc().syncfs if release >= (5, 8) else None
    except (ValueError, AttributeError):
        return None


def has_syncfs() -> bool:
    """Tell whether `syncfs` may be called."""
    return _syncfs_function() is not None


def syncfs(descriptor: int) -> None:
    """Make everything on a file system durable."""
    import ctypes

    if _syncfs_function()(descriptor) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def access(path: Path, mode: int) -> None:
    """Ask whether this process may use a path so. Raises OSError, of which `os.access` says no."""
    if os.access(path, mode):
        return
    import ctypes

    function = getattr(_libc(), "access", None)
    if function is None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    if function(os.fsencode(path), mode) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)


def fchown(descriptor: int, user: int, group: int) -> None:
    """Give an open file to a user and a group; -1 leaves it as it is."""
    os.fchown(descriptor, user, group)


def fchmod(descriptor: int, mode: int) -> None:
    """Set the mode of an open file."""
    os.fchmod(descriptor, mode)


def chmod(path: Path, mode: int) -> None:
    """Set a mode."""
    os.chmod(path, mode)


def utime(path: Path, times_s: Optional[Sequence[int]] = None) -> None:
    """Set access and modification time, of a link itself; to now where none are given."""
    if times_s is None:
        os.utime(path)
    else:
        os.utime(path, (times_s[0], times_s[1]), follow_symlinks=False)


# ---- names -----------------------------------------------------------------------------------


def rename(source: Path, target: Path) -> None:
    """Give a file or folder another name, in place of what has it."""
    os.rename(source, target)


def link(source: Path, target: Path) -> None:
    """Give a file a second name that is free."""
    os.link(source, target, follow_symlinks=False)


def symlink(text: Path, path: Path) -> None:
    """Make a symbolic link."""
    os.symlink(text, path)


def unlink(path: Path) -> None:
    """Remove a name."""
    os.unlink(path)


def mkdir(path: Path) -> None:
    """Make a folder of mode 0700."""
    os.mkdir(path, 0o700)


def rmdir(path: Path) -> None:
    """Remove an empty folder."""
    os.rmdir(path)


def rmtree(path: Path) -> None:
    """Remove a folder and all in it, as far as that goes: the one effect of many calls."""
    import shutil

    try:
        shutil.rmtree(path, ignore_errors=True)
    except OSError:
        return  # it closes a folder again whose closing failed


# ---- other processes -------------------------------------------------------------------------


def send(descriptor: int, data: Data) -> int:
    """Write to a process at the other end of a pipe; return how many bytes were taken."""
    return os.write(descriptor, data)


def start(argv: Sequence[Path], **options: Any) -> "subprocess.Popen[bytes]":
    """Start a program (subprocess.Popen)."""
    import subprocess

    return subprocess.Popen(argv, **options)


def run(argv: Sequence[Path], **options: Any) -> "subprocess.CompletedProcess[Any]":
    """Run a program to its end (subprocess.run)."""
    import subprocess

    return subprocess.run(argv, **options)


def kill_group(group: int, number: int) -> None:
    """Send a signal to every process of a group."""
    os.killpg(group, number)
