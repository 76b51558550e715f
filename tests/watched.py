"""A watched disk: what of the effects so far a power cut could take away.

`hpc_cluster.effects` is replaced, as in `kernel`. A file's content and the names in a folder become
durable by an fsync of the file, and of the folder; a file system's by one syncfs. Two rules follow:

    content before name    a file that is renamed is durable by then
    all before telling     when a step returns, all that it did is durable

`early` holds what broke the first, `pending()` what would break the second now.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Any

import pytest

from hpc_cluster import effects


class Watched:
    """All effects since it was made."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.early: list[str] = []
        """Files that got their name before they were durable."""
        self._contents: dict[tuple[int, int], str] = {}
        self._names: dict[tuple[int, int], dict[str, str]] = {}
        for name in ("open", "write", "pwrite", "ftruncate", "fsync", "syncfs"):
            patch.setattr(effects, name, getattr(self, f"_{name}")(getattr(effects, name)))
        for name in ("rename", "link", "symlink", "unlink", "mkdir", "rmdir"):
            patch.setattr(effects, name, self._naming(name, getattr(effects, name)))
        patch.setattr(effects, "rmtree", self._removing(effects.rmtree))

    def pending(self) -> list[str]:
        """Return what a power cut could take away now: contents of files, and names."""
        names = [path for folder in self._names.values() for path in folder.values()]
        left = {*self._contents.values(), *names}
        return sorted(path for path in left if os.path.isdir(os.path.dirname(path)))

    def forget(self) -> None:
        """Begin anew: whatever is there is durable."""
        self._contents, self._names, self.early = {}, {}, []

    # ---- contents ----------------------------------------------------------------------------

    def _open(self, act: Callable[..., int]) -> Callable[..., int]:
        def effect(path: Any, flags: int, mode: int = 0o600) -> int:
            new = not os.path.lexists(path)
            descriptor = act(path, flags, mode)
            if new:
                self._named(path)
            if new or flags & os.O_TRUNC:
                self._dirty(descriptor, path)
            return descriptor

        return effect

    def _write(self, act: Callable[..., int]) -> Callable[..., int]:
        def effect(descriptor: int, *args: Any) -> int:
            self._dirty(descriptor)
            return act(descriptor, *args)

        return effect

    _pwrite = _write

    def _ftruncate(self, act: Callable[..., None]) -> Callable[..., None]:
        def effect(descriptor: int, size: int) -> None:
            self._dirty(descriptor)
            act(descriptor, size)

        return effect

    def _fsync(self, act: Callable[[int], None]) -> Callable[[int], None]:
        def effect(descriptor: int) -> None:
            act(descriptor)
            key = _key(os.fstat(descriptor))
            self._contents.pop(key, None)
            self._names.pop(key, None)

        return effect

    def _syncfs(self, act: Callable[[int], None]) -> Callable[[int], None]:
        def effect(descriptor: int) -> None:
            act(descriptor)
            device = os.fstat(descriptor).st_dev
            self._contents = {k: v for k, v in self._contents.items() if k[0] != device}
            self._names = {k: v for k, v in self._names.items() if k[0] != device}

        return effect

    def _dirty(self, descriptor: int, path: Any = None) -> None:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            known = path or os.readlink(f"/proc/self/fd/{descriptor}")
            self._contents[_key(status)] = os.fsdecode(known)

    # ---- names -------------------------------------------------------------------------------

    def _naming(self, name: str, act: Callable[..., None]) -> Callable[..., None]:
        def effect(*paths: Any) -> None:
            before = os.lstat(paths[0]) if name in ("rename", "unlink") else None
            act(*paths)
            if name == "rename" and before is not None:
                if _key(before) in self._contents and before.st_size:
                    self.early.append(os.fsdecode(paths[1]))
                    self._contents[_key(before)] = os.fsdecode(paths[1])
                self._named(paths[0], gone=True)
            elif before is not None and before.st_nlink == 1:
                self._contents.pop(_key(before), None)
            self._named(paths[-1], gone=name in ("unlink", "rmdir"))

        return effect

    def _removing(self, act: Callable[[Any], None]) -> Callable[[Any], None]:
        def effect(path: Any) -> None:
            there = os.path.lexists(path)
            act(path)
            if there and not os.path.lexists(path):
                self._named(path, gone=True)

        return effect

    def _named(self, path: Any, *, gone: bool = False) -> None:
        """A name came or went; a name that came and went again is none."""
        folder = os.path.dirname(os.fsdecode(path))
        if not os.path.isdir(folder):
            return
        names = self._names.setdefault(_key(os.stat(folder)), {})
        name = os.path.basename(os.fsdecode(path))
        if gone and name in names:
            names.pop(name)
        else:
            names[name] = os.fsdecode(path)


def _key(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
