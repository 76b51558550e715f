"""The trash: drops and copies that are not needed any more, removed when nothing waits for that.

To remove a file can take longer than all else that was done with it, where a disk is told of each
block that is free again. So what answered jobs leave in the dropbox is moved to `.hpc_batch/trash`
and removed beside the login of the next pass, which has nothing to do meanwhile, or at its end.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable

from hpc_cluster import durable, files


class Trash:
    """The trash of one dropbox, as a pass uses it."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._names: list[str] = []
        """What is to be removed."""
        self._is_news = False
        """Something was put there, perhaps not durably."""

    def look(self) -> None:
        """Note what lies in it: that is to be removed, and not what is put there from now on."""
        with contextlib.suppress(OSError):
            self._names = files.names(self._folder)

    def __len__(self) -> int:
        return len(self._names)

    def size(self) -> int:
        """Return how many bytes are to be removed."""
        statuses = [files.look(f"{self._folder}/{name}") for name in self._names]
        return sum(status.st_size for status in statuses if status is not None)

    def put(self, path: str, name: str) -> bool:
        """Move a file there, under a name of its own; False where that cannot be done."""
        try:
            if not stat.S_ISREG(os.lstat(path).st_mode):
                return False
            try:
                files.rename(path, f"{self._folder}/{name}")
            except FileNotFoundError:
                files.make_folder(self._folder)
                files.rename(path, f"{self._folder}/{name}")
        except OSError:
            return False
        self._is_news = True
        return True

    def sync(self) -> None:
        """Make durable that what was put there is no longer where it was. Raises OSError."""
        if self._is_news:
            durable.sync_folder(self._folder)
            self._is_news = False

    def empty(self, is_enough: Callable[[], bool] = lambda: False) -> None:
        """Remove what was noted, until it is enough; what cannot be removed is tried again."""
        while self._names and not is_enough():
            # RACE: none; a name that is gone, or stays, is nobody's.
            with contextlib.suppress(OSError):
                files.unlink(f"{self._folder}/{self._names.pop()}")
