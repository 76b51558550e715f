"""What travels in bulk: files on their way to the cluster, outputs and streams on their way back.

A frame is an offset, a length and a sha256 on one line, then the bytes (`data_channel`). A file
goes to a target: the store, under its key, or a job, as its N-th input. What fails, fails for one
file with a word that says why; the others go on.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Union

from hpc_batch.inputs import Stamp

FRAME_BYTES = 1 << 20
"""Files are sent in frames of this size: it fits a core's cache, so that what was read is hashed
and sent without another way to the memory."""

MOST_BYTES = 4 << 20
"""No frame is larger, either way."""

WINDOW_BYTES = 32 << 20
"""At most so much is sent and not yet acknowledged. More than ACK_BYTES of the far end (4 MiB)."""

RESUMABLE_BYTES = 1 << 20
"""Stored files from this size on are looked up first: part of them may be there."""


class Carrier(Protocol):
    """What bulk travels on: a `far_end.Wire`, or a `Conversation`, which shares one."""

    def send(self, value: Mapping[str, Any], data: bytes | memoryview = b"") -> None:
        """Send one line, and the bytes that belong to it."""

    def answer(self, verb: str) -> dict[str, Any]:
        """Return the next line of the answer to `verb`."""

    def exactly(self, size: int) -> memoryview:
        """Return the bytes that follow the line of a frame, until the next call."""

    def close(self) -> None:
        """Nothing more is to be carried."""


Target = Union[tuple[Literal["key"], str], tuple[Literal["job"], str, int]]
"""Where a file goes: into the store under its key, or to a job as its N-th input."""


@dataclass(frozen=True)
class Failure:
    """Why one file did not arrive; the others did."""

    kind: str
    """An errno name, or `changed` (the file, since it was taken), `busy` (another session sends
    it), `damaged` (a frame did not match its hash)."""
    message: str
    here: bool = True
    """It failed on this side; False: on the cluster."""

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Outgoing:
    """A local file on its way to the cluster."""

    to: Target
    path: str
    stamp: Stamp
    """What the file was when it was taken; it must still be that, before and after reading."""


@dataclass(frozen=True)
class WantedOutput:
    """An output of a finished attempt, to be written to a local file."""

    job: str
    attempt: int
    name: str
    """Base name; undecodable bytes as surrogates."""
    layout: str
    """`flat` or `split`, as in the description."""
    bytes: int
    """The size in `result.json`; no more is taken."""
    opener: Callable[[], int]
    """Returns a new descriptor of the local file, open for reading and writing and not truncated:
    what it already holds is taken as the beginning of the output. May raise OSError."""
    sha256: str | None = None
    """The one in `result.json`; where it is known the frames need none of their own. What comes
    otherwise is fetched once more, with hashes that tell where it was damaged."""


@dataclass(frozen=True)
class WantedStream:
    """The beginning and the end of a finished attempt's stdout or stderr."""

    job: str
    attempt: int
    what: Literal["stdout", "stderr"]
    head: int
    tail: int


Wanted = Union[WantedOutput, WantedStream]


@dataclass(frozen=True)
class Fetched:
    """What came of one wanted item."""

    size: int = 0
    """Of the whole file on the cluster."""
    sha256: str = ""
    """Of an output as it now stands in the local file, which is not yet synced."""
    head: bytes = b""
    tail: bytes = b""
    """Of a stream; where the whole stream fits it is `head`, and `tail` is empty."""
    failure: Failure | None = None


Progress = Callable[[int], None]
"""Called with the number of bytes of each frame that was sent or written."""


def hash_of(descriptor: int, size: int) -> Any:
    """Return the running sha256 of the first `size` bytes of an open file."""
    digest, offset = hashlib.sha256(), 0
    view = memoryview(bytearray(min(FRAME_BYTES, size)))
    while offset < size:
        count = os.preadv(descriptor, [view[: size - offset]], offset)
        if not count:
            raise OSError(errno.EIO, "the file became shorter")
        digest.update(view[:count])
        offset += count
    return digest


def word(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "EIO")
