"""Bulk: files to and from the cluster as frames over a channel of their own.

A frame is an offset, a length and a sha256 on one line, then the bytes. Outwards (`send`), frames
are streamed without waiting; at most WINDOW_BYTES are unacknowledged, and one `sync` at the end
makes everything durable on the cluster and gives it its final name. So the number of round trips is
the same for one file and for a thousand: one `open`, only when something large may be resumed, and
one `sync`. Back (`fetch`), one request names everything and the answers stream.

A file that changes while it is read is an error of that file, and the cluster throws away what it
has of it. A full disk on either side fails the one file; the others go on.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Union

from hpc_batch.errors import MissingInputError, RemoteError
from hpc_batch.inputs import Stamp, open_input, stamp_of
from hpc_cluster import files

if TYPE_CHECKING:
    from hpc_batch.far_end import Wire

FRAME_BYTES = 4 << 20
"""The largest frame; the far end refuses larger ones."""

WINDOW_BYTES = 32 << 20
"""At most so much is sent and not yet acknowledged. A multiple of FRAME_BYTES."""

RESUMABLE_BYTES = 1 << 20
"""Stored files from this size on are looked up first: part of them may be there."""

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


class DataChannel:
    """A started far end in data mode; send and fetch in turns, from one thread at a time."""

    def __init__(self, wire: Wire, count: Callable[[], None]) -> None:
        self._wire = wire
        self._count = count

    def close(self) -> None:
        """Close the channel; the far end keeps incomplete files for a later session."""
        self._wire.close()

    def send(
        self, outgoing: Sequence[Outgoing], progress: Progress = lambda sent: None
    ) -> dict[Target, Failure]:
        """Send files, make them durable there, and return those that failed.

        Raises RemoteError when the connection breaks; what arrived is resumed by a later session.
        """
        failures: dict[Target, Failure] = {}
        opened = self._open(outgoing)
        flow = _Flow(self._wire, failures)
        flow.start()
        try:
            for file in outgoing:
                found = opened.get(file.to, {})
                if found.get("busy"):
                    text = f"{file.path!r} is being sent by another session"
                    failures[file.to] = Failure("busy", text, here=False)
                elif not found.get("present"):
                    _Reading(file, found, flow, progress).run()
            flow.send({"sync": 1})
            flow.wait()
        finally:
            flow.stop()
        self._count()
        return failures

    def fetch(
        self, items: Sequence[Wanted], progress: Progress = lambda written: None
    ) -> list[Fetched]:
        """Fetch outputs into their local files and streams as bytes; one result for each item.

        Raises RemoteError when the connection breaks; the local files then hold a beginning that a
        later call continues.
        """
        writings = [_Writing(item) for item in items]
        self._wire.send({"get": [w.request() for w in writings if w.failure is None]})
        asked = [w for w in writings if w.failure is None]
        try:
            while True:
                answer = self._wire.message()
                if answer.get("got"):
                    break
                writing = asked[int(answer["item"])]
                if "error" in answer:
                    error = answer["error"]
                    writing.fail(Failure(error["errno"], error["message"], here=False))
                elif answer.get("end"):
                    writing.end(int(answer["size"]))
                else:
                    progress(writing.write(int(answer["offset"]), self._frame(answer)))
        finally:
            for writing in writings:
                writing.close()
        self._count()
        return [writing.fetched() for writing in writings]

    def _frame(self, header: dict[str, Any]) -> bytes:
        size = int(header["bytes"])
        if not 0 <= size <= FRAME_BYTES:
            raise RemoteError(f"the cluster's side sent a frame of {size} bytes")
        data = self._wire.exactly(size)
        if hashlib.sha256(data).hexdigest() != header["sha256"]:
            raise RemoteError("a frame from the cluster did not match its hash")
        return data

    def _open(self, outgoing: Sequence[Outgoing]) -> dict[Target, dict[str, Any]]:
        """Ask what the store has of the larger files; one exchange, or none."""
        large = [f for f in outgoing if f.to[0] == "key" and f.stamp[0] >= RESUMABLE_BYTES]
        if not large:
            return {}
        self._wire.send({"open": [[f.to[1], f.stamp[0]] for f in large]})
        found = self._wire.message()["opened"]
        self._count()
        return {("key", entry["key"]): entry for entry in found}


class _Flow:
    """Frames out, acknowledgements in; a thread reads, so that neither side waits for the other."""

    def __init__(self, wire: Wire, failures: dict[Target, Failure]) -> None:
        self.failures = failures
        self._wire = wire
        self._sent = self._acknowledged = 0
        self._change = threading.Condition()
        self._broken: Exception | None = None
        self._synced = False
        self._thread = threading.Thread(target=self._listen, name="acknowledgements", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Leave the thread behind only where the connection broke; closing the wire ends it."""
        if self._synced:
            self._thread.join()

    def send(self, header: dict[str, Any], data: bytes = b"") -> None:
        """Send a line, and bytes when the window has room for them."""
        with self._change:
            while self._sent + len(data) - self._acknowledged > WINDOW_BYTES and not self._broken:
                self._change.wait()
            self._sent += len(data)
            self._check()
        self._wire.send(header, data)

    def wait(self) -> None:
        """Return once everything is durable on the cluster."""
        with self._change:
            while not self._synced and not self._broken:
                self._change.wait()
            self._check()

    def _check(self) -> None:
        if self._broken:
            raise self._broken

    def _listen(self) -> None:
        try:
            while not self._synced:
                answer = self._wire.message()
                with self._change:
                    self._take(answer)
                    self._change.notify_all()
        except Exception as error:
            with self._change:
                self._broken = error
                self._change.notify_all()

    def _take(self, answer: dict[str, Any]) -> None:
        if "ack" in answer:
            self._acknowledged = int(answer["ack"])
        elif "refused" in answer:
            self._refuse(answer["refused"])
        elif "synced" in answer:
            for entry in answer["synced"]["failed"]:
                self._refuse(entry)
            self._synced = True
        else:
            raise RemoteError(f"the cluster's side sent something unexpected: {answer}")

    def _refuse(self, entry: dict[str, Any]) -> None:
        kind, *rest = entry["to"]
        target: Target = ("key", str(rest[0]))
        if kind == "job":
            target = ("job", str(rest[0]), int(rest[1]))
        failure = Failure(str(entry["errno"]), str(entry["message"]), here=False)
        self.failures.setdefault(target, failure)


class _Reading:
    """One local file being sent."""

    def __init__(
        self, file: Outgoing, found: dict[str, Any], flow: _Flow, progress: Progress
    ) -> None:
        self._file, self._found, self._flow, self._progress = file, found, flow, progress

    def run(self) -> None:
        """Send the file from where the cluster's part of it ends; a failure is noted."""
        try:
            descriptor, stamp = open_input(self._file.path)
        except MissingInputError as error:
            self._give_up("ENOENT", str(error))
            return
        try:
            if stamp != self._file.stamp:
                self._give_up("changed", f"{self._file.path!r} changed after it was taken")
                return
            self._send_all(descriptor)
        except OSError as error:
            self._give_up(_word(error), f"{self._file.path!r} cannot be read: {error.strerror}")
        finally:
            os.close(descriptor)

    def _send_all(self, descriptor: int) -> None:
        """Send frame after frame; the last one only if the file is still what it was."""
        total, offset = self._file.stamp[0], self._begin(descriptor)
        while self._file.to not in self._flow.failures:
            data = os.pread(descriptor, min(FRAME_BYTES, total - offset), offset)
            last = offset + len(data) == total
            short = not data and not last
            if short or (last and stamp_of(os.fstat(descriptor)) != self._file.stamp):
                self._give_up("changed", f"{self._file.path!r} changed while it was read")
                return
            header = {
                "to": list(self._file.to),
                "offset": offset,
                "bytes": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
                "total": total,
            }
            self._flow.send({"frame": header}, data)
            self._progress(len(data))
            offset += len(data)
            if last:
                return

    def _begin(self, descriptor: int) -> int:
        """Return the offset to begin at: what the cluster has, where that is the same content."""
        size = int(self._found.get("offset", 0))
        if not 0 < size <= self._file.stamp[0]:
            return 0
        if _hash_of(descriptor, size).hexdigest() != self._found.get("sha256"):
            return 0
        return size

    def _give_up(self, kind: str, message: str) -> None:
        """Note the failure, and have the cluster throw away what it has."""
        self._flow.failures.setdefault(self._file.to, Failure(kind, message))
        self._flow.send({"discard": list(self._file.to)})


@dataclass
class _Writing:
    """One wanted item being received."""

    item: Wanted
    failure: Failure | None = None
    _size: int = 0
    _offset: int = 0
    _hash: Any = field(default_factory=hashlib.sha256)
    _descriptor: int | None = None
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
        }

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
            if size > item.bytes:
                files.truncate(descriptor, 0)
                size = 0
            self._hash = _hash_of(descriptor, size)
            self._offset = size
        finally:
            os.close(descriptor)

    def write(self, offset: int, data: bytes) -> int:
        """Take one frame; after a failure its bytes are dropped."""
        if isinstance(self.item, WantedStream):
            self._parts.append((offset, data))
            return len(data)
        if self.failure is not None:
            return 0
        if offset != self._offset or offset + len(data) > self.item.bytes:
            raise RemoteError("the cluster's side sent bytes that were not asked for")
        try:
            if self._descriptor is None:
                self._descriptor = self.item.opener()
            files.write_at(self._descriptor, data, self._offset)
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
        self.fail(Failure(_word(error), f"cannot write here: {error.strerror}"))

    def close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            try:
                os.close(descriptor)
            except OSError as error:
                # A network file system reports a full disk here.
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


def _hash_of(descriptor: int, size: int) -> Any:
    """Return the running sha256 of the first `size` bytes of an open file."""
    digest, offset = hashlib.sha256(), 0
    while offset < size:
        data = os.pread(descriptor, min(FRAME_BYTES, size - offset), offset)
        if not data:
            raise OSError(errno.EIO, "the file became shorter")
        digest.update(data)
        offset += len(data)
    return digest


def _word(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "EIO")
