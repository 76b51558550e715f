"""The effects of this process, one of which may be its last, or be made and yet reported as failed.

For tests of single steps: `hpc_cluster.effects` is replaced, so everything goes through here.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest

from hpc_cluster import effects

CHANGING = (
    *("open", "write", "pwrite", "ftruncate", "fallocate", "fsync", "syncfs", "fchmod", "chmod"),
    *("utime", "rename", "link", "symlink", "unlink", "mkdir", "rmdir", "rmtree"),
)


class Killed(BaseException):
    """SIGKILL, as far as the disk can tell."""


class Kernel:
    """What this process does to disks."""

    def __init__(self, patch: pytest.MonkeyPatch, *, links: bool = True) -> None:
        self._at, self._lies = -1, False
        self.count = 0
        """Effects of the last call of `kills` or `lies`."""
        for name in CHANGING:
            patch.setattr(effects, name, self._effect(name, getattr(effects, name)))
        if not links:
            patch.setattr(effects, "link", self._refuse)

    def _effect(self, name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def effect(*args: Any) -> Any:
            self.count += 1
            if self.count - 1 != self._at:
                return act(*args)
            if not self._lies:
                raise Killed
            done = act(*args)
            if name in ("rename", "unlink", "link"):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return done

        return effect

    def _refuse(self, *args: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    def kills(self, at: int, act: Callable[[], Any]) -> bool:
        """Do something, and be killed before effect number `at`; False: it came to its end."""
        self._at, self._lies, self.count = at, False, 0
        try:
            act()
        except Killed:
            return True
        finally:
            self._at = -1
        return False

    def lies(self, at: int, act: Callable[[], Any]) -> bool:
        """Do something whose effect number `at` is made and reported as EIO where that is a name's.

        Returns whether there was such an effect.
        """
        self._at, self._lies, self.count = at, True, 0
        try:
            act()
        except OSError:
            return True
        finally:
            self._at = -1
        return self.count > at
