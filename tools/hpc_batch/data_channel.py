"""The data channel: files to and from the cluster, between the verbs or on a channel of their own.

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
    MOST_BYTES,
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
    from hpc_batch.bulk import Carrier


class DataChannel:
    """A started far end, or the control channel; send and fetch in turns, one thread at a time."""

    def __init__(self, wire: Carrier, count: Callable[[], None]) -> None:
        self._wire = wire
        self._count = count

    def close(self) -> None:
        """Close the channel; the far end keeps incomplete files for a later session."""
        self._wire.close()

    def send(
        self,
        outgoing: Sequence[Outgoing],
        progress: Progress = lambda sent: None,
        had: Progress = lambda count: None,
    ) -> dict[Target, Failure]:
        """Send files, make them durable there, and return those that failed; `had` is told how much
        of one was there before.

        Raises RemoteError when the connection breaks; what arrived is resumed by a later session.
        """
        return self.begin_send(outgoing, progress, had).wait()

    def begin_send(
        self,
        outgoing: Sequence[Outgoing],
        progress: Progress = lambda sent: None,
        had: Progress = lambda count: None,
    ) -> Sent:
        """Send files, and ask for them to be made durable. Raises RemoteError."""
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
                    Sending(file, found, flow, progress).run(had)
            flow.finish()
        except BaseException as error:
            if isinstance(error, Exception) and not isinstance(error, RemoteError):
                # No memory, or a bug: what the far end still says is not for whoever asks next.
                flow.finish()
                flow.wait()
            flow.stop()
            raise
        return Sent(flow, failures, self._count)

    def fetch(
        self,
        items: Sequence[Wanted],
        progress: Progress = lambda written: None,
        had: Progress = lambda count: None,
    ) -> list[Fetched]:
        """Fetch outputs into their local files and streams as bytes; one result for each item.

        Raises RemoteError when the connection breaks; the local files then hold a beginning that a
        later call continues.
        """
        received = [Receiving(item) for item in items]
        had(sum(writing.had for writing in received))
        self._receive(received, progress)
        wrong = [n for n, writing in enumerate(received) if writing.damaged or writing.refused]
        if wrong:
            again = [Receiving(items[number], anew=True) for number in wrong]
            self._receive(again, progress)
            for number, writing in zip(wrong, again):
                received[number] = writing
        return [writing.fetched() for writing in received]

    def _receive(self, writings: Sequence[Receiving], progress: Progress) -> None:
        """Ask for what is wanted and write it as it comes."""
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
                    data = self._frame(answer, plain=writing.plain)
                    progress(writing.write(int(answer["offset"]), data))
        except RemoteError:
            raise
        except Exception:
            # No memory, or a bug: what is on its way is not for whoever asks next.
            self._skip()
            raise
        finally:
            for writing in writings:
                writing.close()
        self._count()

    def _skip(self) -> None:
        """Take the rest of an answer. Raises RemoteError."""
        while not (answer := self._wire.answer("get")).get("got"):
            if "bytes" in answer:
                self._wire.exactly(int(answer["bytes"]))

    def _frame(self, header: dict[str, Any], *, plain: bool) -> memoryview:
        size = int(header["bytes"])
        if not 0 <= size <= MOST_BYTES:
            raise RemoteError(f"the cluster's side sent a frame of {size} bytes")
        data = self._wire.exactly(size)
        if not plain and hashlib.sha256(data).hexdigest() != header["sha256"]:
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


class Sent:
    """Files that were sent, and are not known to be durable yet."""

    def __init__(
        self, flow: Flow, failures: dict[Target, Failure], count: Callable[[], None]
    ) -> None:
        self.failures = failures
        """Those that failed, as far as that is known."""
        self._flow, self._count = flow, count

    def wait(self) -> dict[Target, Failure]:
        """Return those that failed, once all others are durable. Raises RemoteError."""
        try:
            self._flow.wait()
        finally:
            self._flow.stop()
        self._count()
        return self.failures
