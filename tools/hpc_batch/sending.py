"""Sending: local files to the cluster as frames, streamed under a window.

Frames are sent without waiting; a thread reads the acknowledgements, and at most WINDOW_BYTES are
under way. A file is what it was when it was taken, or its last frame is never sent and the cluster
throws away what it has of it.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hpc_batch import threads
from hpc_batch.bulk import (
    FRAME_BYTES,
    WINDOW_BYTES,
    Failure,
    Outgoing,
    Progress,
    Target,
    hash_of,
    word,
)
from hpc_batch.errors import MissingInputError, RemoteError, RemoteTimeout
from hpc_batch.inputs import insist, stamp_of
from hpc_cluster import files

if TYPE_CHECKING:
    from hpc_batch.bulk import Carrier


DUE_S = 90
"""An acknowledgement or the end of a sync is given up after so long without a sign of life."""


class Flow:
    """Frames out, acknowledgements in; a thread reads, so that neither side waits for the other."""

    def __init__(self, wire: Carrier, failures: dict[Target, Failure]) -> None:
        self.failures = failures
        self._wire = wire
        self._sent = self._acknowledged = 0
        self._lock = threading.RLock()
        """Taken by itself: without memory a Condition, which is Python, may not let go of it."""
        self._change = threading.Condition(self._lock)
        self._broken: Exception | None = None
        self._awaited: float | None = None
        """Since when (monotonic) an answer is due; None while this end has not waited for one."""
        self._finished = False
        """The far end was asked to make everything durable, or that was tried."""
        self._synced = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threads.start(self._listen, "acknowledgements")

    def stop(self) -> None:
        """Leave the thread behind only where the connection broke; closing the wire ends it."""
        if self._synced and self._thread is not None:
            self._thread.join()

    def send(self, header: dict[str, Any], data: bytes | memoryview = b"") -> None:
        """Send a line, and bytes when the window has room for them."""
        with self._lock:
            room = WINDOW_BYTES - len(data)
            self._await(lambda: self._sent - self._acknowledged <= room)
            self._sent += len(data)
        self._wire.send(header, data)

    def finish(self) -> None:
        """Ask for everything to be made durable, once. Raises RemoteError."""
        if self._finished:
            raise RemoteError("this machine could not say that everything was sent")
        self._finished = True
        self.send({"sync": 1})

    def wait(self) -> None:
        """Return once everything is durable on the cluster."""
        with self._lock:
            self._await(lambda: self._synced)

    def _await(self, come: Callable[[], bool]) -> None:
        """Wait for what the listening thread will note; the caller holds the condition."""
        self._awaited = time.monotonic()
        self._change.wait_for(lambda: come() or self._broken is not None)
        self._awaited = None
        if self._broken is not None:
            raise self._broken

    def _listen(self) -> None:
        try:
            while not self._synced:
                try:
                    answer = self._wire.answer("frame")
                except RemoteTimeout:
                    # A far end that is not asked anything says nothing: this end reads its disk.
                    if self._due():
                        raise
                    continue
                with self._lock:
                    self._take(answer)
                    self._change.notify_all()
        except MemoryError:
            raise
        except Exception as error:
            with self._lock:
                self._broken = error
                self._change.notify_all()

    def _due(self) -> bool:
        """Tell whether an answer has been waited for long enough."""
        with self._lock:
            return self._awaited is not None and time.monotonic() - self._awaited > DUE_S

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


class Sending:
    """One local file being sent."""

    def __init__(
        self, file: Outgoing, found: dict[str, Any], flow: Flow, progress: Progress
    ) -> None:
        self._file, self._found, self._flow, self._progress = file, found, flow, progress

    def run(self, had: Progress = lambda count: None) -> None:
        """Send the file from where the cluster's part of it ends; a failure is noted."""
        try:
            descriptor, stamp = insist(self._file.path)
        except MissingInputError as error:
            self._give_up("ENOENT", str(error))
            return
        except OSError as error:
            self._give_up(word(error), f"{self._file.path!r} cannot be read: {error.strerror}")
            return
        try:
            if stamp != self._file.stamp:
                self._give_up("changed", f"{self._file.path!r} changed after it was taken")
                return
            offset = self._begin(descriptor)
            had(offset)
            self._send_all(descriptor, offset)
        except OSError as error:
            # It is open: what reading it says now, it need not say the next time.
            kind = word(error) if error.errno in files.PASSING else "EIO"
            self._give_up(kind, f"{self._file.path!r} cannot be read: {error.strerror}")
        finally:
            os.close(descriptor)

    def _send_all(self, descriptor: int, offset: int) -> None:
        """Send frame after frame; the last one only if the file is still what it was."""
        total = self._file.stamp[0]
        memory = memoryview(bytearray(min(FRAME_BYTES, total)))
        while self._file.to not in self._flow.failures:
            # One that grew is not read to its new end: the stamp tells below.
            data = memory[: os.preadv(descriptor, [memory[: total - offset]], offset)]
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
        if hash_of(descriptor, size).hexdigest() != self._found.get("sha256"):
            return 0
        return size

    def _give_up(self, kind: str, message: str) -> None:
        """Note the failure, and have the cluster throw away what it has."""
        self._flow.failures.setdefault(self._file.to, Failure(kind, message))
        self._flow.send({"discard": list(self._file.to)})
