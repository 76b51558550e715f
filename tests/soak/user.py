"""The user of a service host: drops jobs, looks for answers, reads the outputs, and writes it down.

An answer is known by its inode, so one that is moved aside is not taken for another. Some answers
are consumed as soon as they are seen, the others stay where they are. Where a disk is full, the
user tries again later, as people do.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import yaml
from soak import kinds
from soak.history import History
from soak.kinds import KINDS, Drop
from world import World

from hpc_batch.client import Dropbox

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

LOOK_S = 0.25
POOL = 12
"""So many names are used again and again."""


class User(threading.Thread):
    """Drops `count` jobs, of which at most `window` have no answer yet."""

    def __init__(
        self, host: World, history: History, count: int, window: int, journal: str, seed: int
    ) -> None:
        super().__init__(name=f"user of {host.root.name}", daemon=True)
        self.host, self.count, self.window = host, count, window
        self.answered = 0
        self.failure: BaseException | None = None
        self._history, self._journal = history, journal
        self._chance = random.Random(f"{seed} {host.root.name}")
        self._box = Dropbox(host.dropbox)
        self._dropped = 0
        self._number = 0
        self._waiting: dict[str, Drop] = {}
        """By word: dropped, and not answered yet."""
        self._cancels: list[tuple[float, Drop]] = []
        self._seen: set[int] = set()
        (host.root / "in").mkdir(exist_ok=True)

    def run(self) -> None:
        """Drop and look until everything is answered."""
        try:
            while self.answered < self.count:
                self._look()
                while self._dropped < self.count and len(self._waiting) < self.window:
                    if not self._drop():
                        break
                self._cancel()
                time.sleep(LOOK_S)
            self._look()
        except BaseException as error:
            self.failure = error
            raise

    # ---- dropping ----------------------------------------------------------------------------

    def _drop(self) -> bool:
        """Drop one more job; False where that could not be done now."""
        self._number += 1
        word = f"{self.host.root.name}-{self._number}"
        kind = kinds.choose(self._chance)
        name = word
        if KINDS[kind].again:
            name = f"again{self._chance.randrange(POOL)}"
            if any(drop.name == name for drop in self._waiting.values()):
                return True  # its outputs would be overwritten before they are looked at
        elif not KINDS[kind].cancel and self._chance.random() < 0.15:
            name = f"name{self._chance.randrange(POOL)}"
        if (self.host.dropbox / f"{name}.job").exists():
            return True
        try:
            drop = kinds.make(word, name, kind, self.host.root, self._journal, self._chance)
        except OSError:
            return False
        self._history.note(
            "dropping",
            host=self.host.root.name,
            word=word,
            name=name,
            kind=kind,
            line=drop.line,
            lines=drop.lines,
            outputs=drop.outputs,
        )
        self._waiting[word] = drop
        try:
            if KINDS[kind].slowly:
                self._write_in_place(drop)
            else:
                self._box.drop(name, drop.text)
        except OSError as error:
            del self._waiting[word]
            self._history.note("withdrawn", word=word, why=str(error))
            return False
        self._dropped += 1
        if KINDS[kind].cancel:
            self._cancels.append((time.monotonic() + self._chance.uniform(0, 8), drop))
        return True

    def _write_in_place(self, drop: Drop) -> None:
        path = self.host.dropbox / f"{drop.name}.job"
        with path.open("xb", buffering=0) as file:
            try:
                half = len(drop.text) // 2
                for part in (drop.text[:half], drop.text[half:]):
                    if file.write(part) < len(part):
                        raise OSError("the disk is full")
                    time.sleep(0.05)
            except OSError:
                path.unlink()
                raise

    def _cancel(self) -> None:
        now = time.monotonic()
        for due, drop in list(self._cancels):
            if now >= due:
                self._cancels.remove((due, drop))
                if drop.word in self._waiting:
                    self._history.note("cancel", word=drop.word)
                    with contextlib.suppress(OSError):
                        (self.host.dropbox / f"{drop.name}.job.cancel").touch()

    # ---- looking -----------------------------------------------------------------------------

    def _look(self) -> None:
        with os.scandir(self.host.dropbox) as entries:
            new = [e for e in entries if ".job.finished" in e.name and e.inode() not in self._seen]
        for entry in new:
            self._read(Path(entry.path))

    def _read(self, path: Path) -> None:
        """Write down an answer that was not seen before, with what stands at its outputs."""
        try:
            with path.open("rb") as file:
                data, inode = file.read(), os.fstat(file.fileno()).st_ino
        except FileNotFoundError:
            return  # RACE: moved aside since it was listed
        if inode in self._seen:
            return
        self._seen.add(inode)
        try:
            answer = yaml.load(data, LOADER)
            word, node = answer["x-submission"], answer["job"]
        except (yaml.YAMLError, KeyError, TypeError):
            self._history.note("torn", host=self.host.root.name, path=str(path), text=repr(data))
            return
        drop = self._waiting.get(word)
        facts: dict[str, Any] = {"outputs": {}}
        if drop is not None:
            facts["outputs"] = {k: kinds.digest(_content(p)) for k, p in drop.outputs.items()}
        for key in ("id", "status", "reason", "rc", "attempts", "message"):
            facts[key] = node.get(key)
        self._history.note("answer", word=word, path=str(path), **facts)
        if drop is not None:
            del self._waiting[word]
            self.answered += 1
        if self._chance.random() < 0.7:
            self._history.note("consumed", word=word)
            with contextlib.suppress(FileNotFoundError):
                # RACE: moved aside since it was read; then it stays there.
                if path.stat().st_ino == inode:
                    path.unlink()
                    self._seen.discard(inode)


def _content(path: str) -> bytes | None:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        return None
