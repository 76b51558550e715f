"""The input store: files from service hosts, each sent once and shared between jobs.

    inputs/KEY        complete: mode 0400, hard-linked into jobs/J/in/N
    inputs/KEY.S      arriving in session S
    inputs/KEY.part   the beginning that an ended session left

A key is made from what identified the file on its host, so a changed file has another key, and what
lies here under a key is never rewritten. Its times are ours: atime is when it was last wanted, for
eviction; mtime is the time it became complete, moved back to the last second that is congruent to
the key's checksum modulo MARK_S. Whoever writes into the file through one of its links (a job run
by root, or one that gave itself the right) changes the mtime, and the file is not linked again.

A file with more than one link is in use. Links are made before a job is published, so evicting what
has a single link can only cause a file to be sent again.
"""

import errno
import os
import re
import stat
import zlib
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from hpc_cluster import files

KEY = re.compile(r"[0-9a-f]{16,64}")
"""What a key looks like; a dot never stands in one."""

ARRIVING = re.compile(r"(?P<key>[0-9a-f]{16,64})\.(?P<session>[0-9a-f]{16}|part)")

MARK_S = 4096
"""A foreign mtime passes for ours once in so many cases; a complete file looks at most so much
older than it is, which no clean-up rule of a cluster notices."""

STILL_S = 120
"""A partial file of another session is taken over when it did not change for so long. Twice
SILENCE_S of `channel` (60): by then its far end has left."""

RESTING_S = 600
"""What was wanted within this time is not evicted: its job may be about to link it."""

CANNOT_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES)


class Missing(Exception):
    """The store has no good file of this key; it must be sent (again)."""


class Begun(NamedTuple):
    """How much of a file is there."""

    offset: int
    """Bytes of it that are in inputs/KEY.S now."""
    busy: bool
    """Another session is sending it."""


class Count(NamedTuple):
    """What is in the store."""

    files: int
    bytes: int
    in_use: int
    """Files that a job on the cluster names; they are not evicted."""


class Store:
    """The store of one workspace, as one session uses it."""

    def __init__(self, folder: bytes, session: str) -> None:
        self.folder = folder
        self.still_s = STILL_S
        self.resting_s = RESTING_S
        self._session = session

    def path(self, name: str) -> bytes:
        """Return where a file lies: under its key when it is complete."""
        return files.join(self.folder, name)

    def arriving(self, key: str) -> bytes:
        """Return where this session writes a file."""
        return self.path(key + "." + self._session)

    def now(self) -> int:
        """Return the file server's clock in whole seconds."""
        name = ".clock." + self._session
        try:
            return int(files.server_now(self.folder, name))
        finally:
            files.unlink(self.path(name))

    # ---- complete files ----------------------------------------------------------------------

    def wanted(self, sizes: Iterable[Tuple[str, int]]) -> List[str]:
        """Return the keys that must be sent; the others are marked as wanted just now."""
        named, missing = list(sizes), []
        now = self.now() if named else 0
        for key, size in named:
            try:
                mtime = self._check(key, size)
                files.set_times(self.path(key), now, mtime)
            except (Missing, FileNotFoundError):
                # RACE: evicted or found damaged between the look and the mark.
                missing.append(key)
        return missing

    def same(self, key: str, size: int, path: bytes) -> bool:
        """Tell whether `path` is a link to the file of this key already. Raises Missing."""
        self._check(key, size)
        try:
            return os.path.samestat(os.lstat(self.path(key)), os.lstat(path))
        except FileNotFoundError:
            return False

    def link(self, key: str, size: int, target: bytes) -> bool:
        """Make `target` the file of this key, by a link or else a copy; tell whether it is a copy.

        Raises Missing, OSError.
        """
        self._check(key, size)
        try:
            files.link(self.path(key), target)
            return False
        except FileNotFoundError:
            raise Missing(key) from None
        except OSError as error:
            if error.errno not in CANNOT_LINK:
                raise
        files.copy(self.path(key), target, 0o400)
        return True

    def seal(self, key: str, now: int) -> None:
        """Give an arrived file the mode and the times of a complete one; it is not renamed yet."""
        files.change_mode(self.arriving(key), 0o400)
        files.set_times(self.arriving(key), now, now - (now - _mark(key)) % MARK_S)

    def enter(self, key: str) -> None:
        """Arriving to complete: inputs/KEY.S becomes inputs/KEY. The folder is not synced yet."""
        files.rename(self.arriving(key), self.path(key))

    def _check(self, key: str, size: int) -> int:
        """Return the mtime of a good file; a damaged one is removed. Raises Missing."""
        try:
            status = os.lstat(self.path(key))
        except FileNotFoundError:
            raise Missing(key) from None
        mtime = int(status.st_mtime)
        good = stat.S_ISREG(status.st_mode) and status.st_size == size
        if not good or (mtime - _mark(key)) % MARK_S != 0:
            files.unlink(self.path(key))
            raise Missing(key)
        return mtime

    # ---- arriving files ----------------------------------------------------------------------

    def begin_all(self, keys: Iterable[str]) -> Dict[str, Begun]:
        """Make inputs/KEY.S the best beginning that is there, for each key, and tell its size.

        A beginning changes hands by one rename, so two sessions never continue the same one.
        """
        now = self.now()
        found: Dict[str, List[str]] = {}
        for name in files.names(self.folder):
            match = ARRIVING.fullmatch(name)
            if match is not None:
                found.setdefault(match.group("key"), []).append(name)
        return {key: self._begin(key, found.get(key, []), now) for key in keys}

    def _begin(self, key: str, names: Sequence[str], now: int) -> Begun:
        others = [name for name in names if name != key + "." + self._session]
        if len(others) == len(names):
            for name in sorted(others, reverse=True):  # KEY.part first
                if self._idle(name, now) and files.move(self.path(name), self.arriving(key)):
                    files.change_mode(self.arriving(key), 0o600)
                    break
            else:
                return Begun(0, bool(others))
        try:
            return Begun(os.lstat(self.arriving(key)).st_size, False)
        except FileNotFoundError:
            # RACE: our own beginning was taken over, since we were silent for too long.
            return Begun(0, True)

    def _idle(self, name: str, now: int) -> bool:
        """Tell whether nobody writes this beginning any more."""
        if name.endswith(".part"):
            return True
        status = self._look(name)
        # One from the future is idle, too: the file server's clock was set back since.
        return status is not None and abs(now - status.st_ctime) >= self.still_s

    def release(self, key: str) -> None:
        """inputs/KEY.S becomes inputs/KEY.part, for a later session to continue."""
        files.move(self.arriving(key), self.path(key + ".part"))

    def discard(self, key: str) -> None:
        """Remove what this session received of a file."""
        files.unlink(self.arriving(key))

    # ---- cleaning ----------------------------------------------------------------------------

    def evict(self, limit: Optional[int], stale_s: int) -> List[str]:
        """Remove beginnings that nobody continued for `stale_s`, and then, least recently wanted
        first, complete files that no job uses until all together have at most `limit` bytes.

        Returns the names that were removed.
        """
        now, total, removed = self.now(), 0, []
        idle: List[Tuple[float, str, int]] = []
        for name in files.names(self.folder):
            status = self._look(name)
            if status is None:
                continue
            if ARRIVING.fullmatch(name):
                if now - status.st_ctime > stale_s and files.unlink(self.path(name)):
                    removed.append(name)
            elif KEY.fullmatch(name):
                total += status.st_size
                if status.st_nlink == 1 and now - status.st_atime > self.resting_s:
                    idle.append((status.st_atime, name, status.st_size))
        for _, name, size in sorted(idle):
            if limit is None or total <= limit:
                break
            if files.unlink(self.path(name)):
                removed.append(name)
            total -= size
        return removed

    def count(self) -> Count:
        """Count the complete files."""
        found = [self._look(name) for name in files.names(self.folder) if KEY.fullmatch(name)]
        there = [status for status in found if status is not None]
        in_use = sum(1 for status in there if status.st_nlink > 1)
        return Count(len(there), sum(status.st_size for status in there), in_use)

    def _look(self, name: str) -> Any:
        try:
            return os.lstat(self.path(name))
        except FileNotFoundError:
            # RACE: another session cleans, completes or releases.
            return None


def _mark(key: str) -> int:
    return zlib.crc32(key.encode("ascii")) % MARK_S
