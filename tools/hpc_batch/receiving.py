"""Receiving: one wanted item, written to its local file as its frames come.

What the file holds already is hashed and not asked for again. When it cannot be written, only this
item fails: the rest of its frames is read and dropped. A long file is synced while it grows.
"""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import dataclass, field
from typing import Any

from hpc_batch.bulk import Failure, Fetched, Wanted, WantedOutput, WantedStream, hash_of, word
from hpc_batch.errors import RemoteError
from hpc_cluster import files
from hpc_cluster.writeback import Writeback


@dataclass
class Receiving:
    """One wanted item being received."""

    item: Wanted
    anew: bool = False
    """What the local file holds is thrown away, and frames bring hashes of their own."""
    failure: Failure | None = None
    had: int = 0
    """So much was there before."""
    _size: int = 0
    _offset: int = 0
    _hash: Any = field(default_factory=hashlib.sha256)
    _descriptor: int | None = None
    _writeback: Writeback | None = None
    _parts: list[tuple[int, bytes]] = field(default_factory=list)

    def request(self) -> dict[str, Any]:
        """Return what to ask for: of an output, what the local file does not have yet."""
        item = self.item
        common = {"job": item.job, "attempt": item.attempt}
        if isinstance(item, WantedStream):
            return {**common, "what": item.what, "head": item.head, "tail": item.tail}
        return {
            **common,
            "what": "output",
            "name": item.name,
            "layout": item.layout,
            "offset": self._offset,
            "bytes": item.bytes - self._offset,
            "plain": self.plain,
        }

    @property
    def plain(self) -> bool:
        """Its frames have no hashes, because that of the whole is known."""
        known = isinstance(self.item, WantedOutput) and self.item.sha256 is not None
        return known and not self.anew

    def __post_init__(self) -> None:
        if isinstance(self.item, WantedOutput):
            try:
                self._resume(self.item)
            except OSError as error:
                self._fail_here(error)

    def _resume(self, item: WantedOutput) -> None:
        """Hash what the local file already holds; one that holds too much begins anew."""
        descriptor = item.opener()
        try:
            size = os.fstat(descriptor).st_size
            if size > item.bytes or self.anew:
                files.truncate(descriptor, 0)
                size = 0
            self._hash = hash_of(descriptor, size)
            self._offset = self.had = size
        finally:
            os.close(descriptor)

    def write(self, offset: int, data: memoryview) -> int:
        """Take one frame; after a failure its bytes are dropped."""
        if isinstance(self.item, WantedStream):
            self._parts.append((offset, bytes(data)))
            return len(data)
        if self.failure is not None:
            return 0
        if offset != self._offset or offset + len(data) > self.item.bytes:
            raise RemoteError("the cluster's side sent bytes that were not asked for")
        try:
            if self._descriptor is None or self._writeback is None:
                self._descriptor = self.item.opener()
                self._writeback = Writeback(self._descriptor)
            files.write_at(self._descriptor, data, self._offset)
            self._writeback.wrote(len(data))
        except OSError as error:
            self._fail_here(error)
            return 0
        self._hash.update(data)
        self._offset += len(data)
        return len(data)

    def end(self, size: int) -> None:
        """The cluster has sent all of it; its size there is `size`."""
        self._size = size
        self.close()

    def fail(self, failure: Failure) -> None:
        self.failure = self.failure or failure
        self.close()

    def _fail_here(self, error: OSError) -> None:
        self.fail(Failure(word(error), f"cannot write here: {error.strerror}"))

    @property
    def damaged(self) -> bool:
        """It came, and is not what the result says."""
        wanted = self.item.sha256 if isinstance(self.item, WantedOutput) else None
        return self.plain and self.failure is None and self._hash.hexdigest() != wanted

    @property
    def refused(self) -> bool:
        """This host said that it may not be written: for good, or for a moment."""
        passing = {errno.errorcode[number] for number in files.PASSING}
        failure = self.failure
        return failure is not None and failure.here and failure.kind not in passing

    def close(self) -> None:
        if self._descriptor is None or self._writeback is None:
            return
        self._descriptor = None
        try:
            self._writeback.close()
        except OSError as error:
            self._fail_here(error)

    def fetched(self) -> Fetched:
        """Return what came of it."""
        if self.failure is not None:
            return Fetched(size=self._size, failure=self.failure)
        if isinstance(self.item, WantedOutput):
            return Fetched(size=self._size, sha256=self._hash.hexdigest())
        head = b"".join(data for offset, data in self._parts if offset < self.item.head)
        tail = b"".join(data for offset, data in self._parts if offset >= self.item.head)
        return Fetched(size=self._size, head=head, tail=tail)
