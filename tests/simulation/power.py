"""A disk whose power may be cut: what was made durable, and what may be left of the rest.

A folder's names and a file's content are two things. An fsync of a file makes its content durable,
not its name; an fsync of a folder makes the names in it durable, and with them the renames that
brought them there: a rename is one transaction of the file system, never half of one. Everything
else may be lost, or kept, in any order: later effects while earlier ones are gone, a name while the
content behind it is gone.

Nothing is removed for good while the disk is watched: what loses its last name goes to a morgue, so
that a cut may bring it back, as the same inode.
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable
from typing import Any, NamedTuple

SHAPES = ("lost", "last", "names", "contents", "later", "earlier", "any")
"""What is left of effects that were not made durable:

lost      nothing
last      the last rename, without the content of what it renamed
names     all names, no contents
contents  all contents, no names
later     the later half of the names; no contents
earlier   the earlier half of the names; all contents
any       a draw for each
"""

_lstat, _rename, _link, _unlink, _rmdir = os.lstat, os.rename, os.link, os.unlink, os.rmdir
_listdir, _open, _fstat, _mkdir = os.listdir, os.open, os.fstat, os.mkdir


class Change(NamedTuple):
    """One effect on names."""

    names: tuple[tuple[int, str, int | None], ...]
    """Folder's inode, name, and the inode that it names now; None: it names nothing."""
    gains: int
    """The folder whose fsync makes it durable."""
    rename: bool


class Disk:
    """The folders `below` of a root, on one disk."""

    def __init__(self, root: str, below: tuple[str, ...]) -> None:
        self._tops = [os.path.join(root, name) for name in below]
        self._morgue = os.path.join(root, "morgue-" + below[0].replace("/", "-"))
        _mkdir(self._morgue)
        self._folders: dict[int, dict[str, int]] = {}
        """The names in folders, as they are durable."""
        self._contents: dict[int, bytes] = {}
        """The contents of files, as they are durable."""
        self._changes: list[Change] = []
        """What happened to names since then, in order."""
        self._durable: list[bool] = []
        """Which of it is durable."""
        self.syncs = 0
        """How often something became durable."""
        for top in self._tops:
            self._begin(top)

    def _begin(self, folder: str) -> None:
        """Whatever is there when watching begins is durable."""
        names = self._folders.setdefault(_lstat(folder).st_ino, {})
        for name in _listdir(folder):
            path = os.path.join(folder, name)
            status = _lstat(path)
            names[name] = status.st_ino
            if stat.S_ISDIR(status.st_mode):
                self._begin(path)
            elif stat.S_ISREG(status.st_mode):
                self._contents[status.st_ino] = _content(path)

    def holds(self, path: str) -> bool:
        """Tell whether a path is on this disk."""
        return any(path.startswith(top + "/") or path == top for top in self._tops)

    # ---- what happens ------------------------------------------------------------------------

    def _corpse(self, inode: int) -> str:
        return os.path.join(self._morgue, str(inode))

    def keep(self, path: str) -> None:
        """Something is about to lose this name to another file."""
        try:
            status = _lstat(path)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(status.st_mode):
            if not _listdir(path):
                _rename(path, self._corpse(status.st_ino))
        elif status.st_nlink == 1:
            _link(path, self._corpse(status.st_ino), follow_symlinks=False)

    def remove(self, path: str, inode: int, act: Callable[[str], None]) -> None:
        """Remove a name; what had no other one lies in the morgue."""
        status = _lstat(path)
        folder = _lstat(os.path.dirname(path)).st_ino
        if stat.S_ISDIR(status.st_mode) != (act is _rmdir):
            act(path)  # it is refused
        if stat.S_ISDIR(status.st_mode) or status.st_nlink == 1:
            _rename(path, self._corpse(inode))
        else:
            act(path)
        self._happened(Change(((folder, os.path.basename(path), None),), folder, False))

    def _happened(self, change: Change) -> None:
        self._changes.append(change)
        self._durable.append(False)

    def renamed(self, source: str, target: str, inode: int) -> None:
        one, two = _lstat(os.path.dirname(source)).st_ino, _lstat(os.path.dirname(target)).st_ino
        names = ((one, os.path.basename(source), None), (two, os.path.basename(target), inode))
        self._happened(Change(names, two, True))

    def named(self, path: str, inode: int) -> None:
        folder = _lstat(os.path.dirname(path)).st_ino
        self._happened(Change(((folder, os.path.basename(path), inode),), folder, False))

    def synced(self, descriptor: int) -> None:
        """An fsync of a file or of a folder."""
        status = _fstat(descriptor)
        self.syncs += 1
        if stat.S_ISDIR(status.st_mode):
            self._settle(lambda change: change.gains == status.st_ino)
        else:
            self._contents[status.st_ino] = _content(f"/proc/self/fd/{descriptor}")

    def synced_all(self) -> None:
        """A syncfs."""
        self.syncs += 1
        self._settle(lambda change: True)
        for inode, path in self._places().items():
            if stat.S_ISREG(_lstat(path).st_mode):
                self._contents[inode] = _content(path)

    def _settle(self, durable: Callable[[Change], bool]) -> None:
        """Make changes durable."""
        now = [was or durable(change) for was, change in zip(self._durable, self._changes)]
        self._durable = self._with_earlier(now)
        while self._durable and self._durable[0]:
            self._apply(self._folders, self._changes.pop(0))
            self._durable.pop(0)

    def _with_earlier(self, kept: list[bool]) -> list[bool]:
        """Return which changes are kept with these: those before them under the same names."""
        touched: set[tuple[int, str]] = set()
        found = list(kept)
        for number in reversed(range(len(kept))):
            names = {(folder, name) for folder, name, _ in self._changes[number].names}
            if found[number] or names & touched:
                found[number] = True
                touched |= names
        return found

    def _apply(self, folders: dict[int, dict[str, int]], change: Change) -> None:
        for folder, name, inode in change.names:
            names = folders.setdefault(folder, {})
            if inode is None:
                names.pop(name, None)
            else:
                names[name] = inode

    # ---- the cut -----------------------------------------------------------------------------

    def cut(self, shape: str, seed: int = 0) -> None:
        """Cut the power: rebuild the disk as it may be afterwards. All of it is durable then."""
        draw = random.Random(seed)
        folders = {inode: dict(names) for inode, names in self._folders.items()}
        renames = [
            number
            for number, change in enumerate(self._changes)
            if change.rename and not self._durable[number]
        ]
        half, last = len(self._changes) // 2, max(renames, default=-1)
        kept = [
            self._durable[number]
            or {
                "lost": False,
                "last": number == last,
                "names": True,
                "contents": False,
                "later": number >= half,
                "earlier": number < half,
                "any": draw.random() < 0.5,
            }[shape]
            for number in range(len(self._changes))
        ]
        for change, keep in zip(self._changes, self._with_earlier(kept)):
            if keep:
                self._apply(folders, change)
        self._rebuild(folders)
        for inode, path in self._places().items():
            if not stat.S_ISREG(_lstat(path).st_mode):
                continue
            now, before = _content(path), self._contents.get(inode, b"")
            all_of_it = {"contents": True, "earlier": True, "any": draw.random() < 0.5}
            after = now if all_of_it.get(shape, False) else before
            if after != now:
                _fill(path, after)
            self._contents[inode] = after
        self._folders, self._changes, self._durable = {}, [], []
        for top in self._tops:
            self._begin(top)

    def _places(self) -> dict[int, str]:
        """Return one path of everything on the disk and in the morgue."""
        found: dict[int, str] = {}
        waiting = [self._morgue, *self._tops]
        while waiting:
            folder = waiting.pop()
            for name in _listdir(folder):
                path = os.path.join(folder, name)
                status = _lstat(path)
                found.setdefault(status.st_ino, path)
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(path)
        return found

    def _rebuild(self, wanted: dict[int, dict[str, int]]) -> None:
        """Give every folder exactly the names wanted: first all that is wrong goes."""
        waiting = [self._morgue, *self._tops]
        while waiting:
            folder = waiting.pop()
            number = _lstat(folder).st_ino
            right = wanted.get(number, {})
            for name in _listdir(folder):
                path = os.path.join(folder, name)
                status = _lstat(path)
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(path)
                if folder == self._morgue or right.get(name) == status.st_ino:
                    continue
                corpse = self._corpse(status.st_ino)
                if os.path.lexists(corpse):
                    _unlink(path)
                else:
                    _rename(path, corpse)
                    if stat.S_ISDIR(status.st_mode):
                        waiting[-1] = corpse
        places = self._places()
        waiting = list(self._tops)
        while waiting:
            folder = waiting.pop()
            for name, inode in wanted.get(_lstat(folder).st_ino, {}).items():
                path = os.path.join(folder, name)
                if not os.path.lexists(path):
                    if stat.S_ISDIR(_lstat(places[inode]).st_mode):
                        _rename(places[inode], path)
                        places = self._places()
                    else:
                        _link(places[inode], path, follow_symlinks=False)
                if stat.S_ISDIR(_lstat(path).st_mode):
                    waiting.append(path)
        for name in _listdir(self._morgue):
            path = os.path.join(self._morgue, name)
            if not stat.S_ISDIR(_lstat(path).st_mode) and _lstat(path).st_nlink > 1:
                _unlink(path)


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _fill(path: str, data: bytes) -> None:
    mode = _lstat(path).st_mode
    os.chmod(path, 0o600)
    descriptor = _open(path, os.O_WRONLY | os.O_TRUNC)
    try:
        _WRITE(descriptor, data)
    finally:
        os.close(descriptor)
    os.chmod(path, stat.S_IMODE(mode))


_WRITE: Any = os.write
