"""The data channel: files to and from the cluster, over a channel of their own of the same login.

Outwards, frames stream without waiting, and one `sync` at the end makes everything durable on the
cluster and gives it its final name. So the number of round trips is the same for one file and for a
thousand: one `open`, only when something large may be resumed, and one `sync`. Back, one request
names everything and the answers stream.

A full disk on either side fails the one file; the others go on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hpc_batch.bulk import (
    FRAME_BYTES,
    RESUMABLE_BYTES,
    Failure,
    Fetched,
    Outgoing,
    Progress,
    Target,
    Wanted,
)
from hpc_batch.errors import RemoteError
from hpc_batch.receiving import Receiving
from hpc_batch.sending import Flow, Sending

if TYPE_CHECKING:
    from hpc_batch.far_end import Wire


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
        flow = Flow(self._wire, failures)
        flow.start()
        try:
            for file in outgoing:
                found = opened.get(file.to, {})
                if found.get("busy"):
                    text = f"{file.path!r} is being sent by another session"
                    failures[file.to] = Failure("busy", text, here=False)
                elif not found.get("present"):
                    Sending(file, found, flow, progress).run()
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
        writings = [Receiving(item) for item in items]
        self._wire.send({"get": [w.request() for w in writings if w.failure is None]})
        asked = [w for w in writings if w.failure is None]
        try:
            while True:
                answer = self._wire.answer("get")
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
        found = self._wire.answer("open")["opened"]
        self._count()
        return {("key", entry["key"]): entry for entry in found}
