"""An arrival: one file on its way in, and how far it has come.

It is written under a name with the session in it, frame after frame. A frame of its beginning
starts it anew; any other must continue where the last one ended.
"""

import errno
import os
from typing import Any, Optional, Tuple

from hpc_cluster import files
from hpc_cluster.writeback import Writeback

Target = Tuple[Any, ...]


class Refused(Exception):
    """A target cannot be written; the word and the sentence travel to the near end."""

    def __init__(self, word: str, message: str) -> None:
        Exception.__init__(self, message)
        self.word = word
        self.message = message


class Arrival:
    """One file on its way in: where it is written and how far it has come."""

    def __init__(self, target: Target, temporary: bytes, final: bytes) -> None:
        self.target = target
        self.temporary = temporary
        self.final = final
        self.have = 0
        self.total = -1
        self.failed = False
        self._descriptor: Optional[int] = None
        self._writeback: Optional[Writeback] = None

    @property
    def stored(self) -> bool:
        """A file of the store, which a later session can continue."""
        return bool(self.target[0] == "key")

    @property
    def complete(self) -> bool:
        """Every byte has come."""
        return self.have == self.total and not self.failed

    def write(self, offset: int, data: memoryview, total: int) -> None:
        """Take a frame: the next one, or the first one again. Raises Refused, OSError."""
        if self._descriptor is None or self._writeback is None:
            self._descriptor = files.open_partial(self.temporary)
            self._writeback = Writeback(self._descriptor)
            self.have = os.fstat(self._descriptor).st_size
        if offset == 0 and self.have:
            files.truncate(self._descriptor, 0)
            self.have = 0
        if offset != self.have:
            text = f"bytes from {offset} on came when {self.have} were there"
            raise Refused("ESPIPE", text)
        try:
            files.write_at(self._descriptor, data, offset)
        except OSError:
            files.truncate(self._descriptor, self.have)
            raise
        self._writeback.wrote(len(data))
        self.have += len(data)
        self.total = total
        if self.complete:
            self.close()

    def close(self) -> None:
        """Close the file. Raises OSError."""
        if self._descriptor is None or self._writeback is None:
            return
        self._descriptor = None
        self._writeback.close()


def reason(error: Exception) -> Tuple[str, str]:
    """Return the word and the sentence for an error."""
    if isinstance(error, Refused):
        return error.word, error.message
    number = getattr(error, "errno", None) or errno.EIO
    return errno.errorcode.get(number, "EIO"), getattr(error, "strerror", None) or str(error)
