"""A conversation: the lines of one wire, on which several questions may be open at a time.

What a pass asks for is numbered, so that it may ask on before it has heard the answer: the far end
performs one request after the other, in order, and three that are asked together cost one round
trip. Bulk goes over the same wire in between; its frames and acknowledgements carry no number.

Whoever waits for an answer reads; what comes for somebody else is put aside for him. So one thread
may wait for a result while another sends files.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from hpc_batch.errors import RemoteError, RemoteTimeout
from hpc_batch.far_end import Wire, failure_of

Found = TypeVar("Found")

QUESTIONS = {"open": "opened", "sync": "synced", "get": "got"}
"""What bulk asks, and the word in the answer; one of each at a time."""


class Conversation:
    """One wire, shared. Its `send`, `answer` and `exactly` are a Wire's, for bulk."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._lock = threading.RLock()
        """Taken by itself: without memory a Condition, which is Python, may not let go of it."""
        self._turn = threading.Condition(self._lock)
        self._reading = False
        self._broken: Exception | None = None
        self._asked = 0
        self._open: set[int | str] = set()
        """Requests whose answers have not come."""
        self._answers: dict[int, dict[str, Any]] = {}
        self._bulk: deque[tuple[dict[str, Any], bytes]] = deque()
        self._rest = b""
        """Bytes of the frame whose header was taken last."""
        self.flights = 0
        """Round trips so far: what is asked before an answer was waited for takes part in one."""
        self._waited = True
        """An answer was waited for since the last question."""

    # ---- questions ---------------------------------------------------------------------------

    def ask(self, verb: str, args: Mapping[str, Any]) -> int:
        """Send a request and return its number. Raises RemoteError."""
        with self._lock:
            if self._broken is not None:
                raise self._broken
            self._asked += 1
            number = self._asked
            self._opened(number)
        self._wire.send({"n": number, "verb": verb, "args": args})
        return number

    def _opened(self, question: int | str) -> None:
        """Note a question; the caller holds the turn."""
        self.flights += self._waited
        self._waited = False
        self._open.add(question)

    def result(self, number: int, verb: str) -> Any:
        """Wait for the answer to a request and return what it holds.

        Raises RemoteError; FarEndError where it is an error.
        """
        answer = self._await(lambda: self._answers.pop(number, None))
        self.waited()
        error = failure_of(answer, verb)
        if error is not None:
            raise error
        return answer["result"]

    # ---- bulk --------------------------------------------------------------------------------

    def send(self, value: Mapping[str, Any], data: bytes | memoryview = b"") -> None:
        """Send a line, and the bytes that belong to it."""
        for question in QUESTIONS.keys() & value.keys():
            with self._lock:
                self._opened(question)
        self._wire.send(value, data)

    def answer(self, verb: str) -> dict[str, Any]:
        """Return the next line that answers no numbered request. Raises RemoteError."""
        found, self._rest = self._await(
            lambda: self._bulk.popleft() if self._bulk else None, patient=True
        )
        error = failure_of(found, verb)
        if error is not None:
            raise error
        return found

    def exactly(self, size: int) -> memoryview:
        """Return the bytes of the frame whose header `answer` returned last."""
        data, self._rest = self._rest, b""
        if len(data) != size:
            raise RemoteError("the cluster's side sent a frame of another size")
        return memoryview(data)

    def waited(self) -> None:
        """Note that an answer was waited for: what is asked next is a round trip more."""
        with self._lock:
            self._waited = True

    def close(self) -> None:
        """Leave the wire open: it is the session's."""

    # ---- reading -----------------------------------------------------------------------------

    def _await(self, take: Callable[[], Found | None], *, patient: bool = False) -> Found:
        """Return what `take` finds, reading on until it finds something.

        Raises what broke the wire. So does a silence, but of who is patient: he is told, and may
        wait on.
        """
        with self._lock:
            while (found := take()) is None:
                if self._broken is not None:
                    raise self._broken
                if self._reading:
                    self._turn.wait()
                else:
                    self._read(patient)
            return found

    def _read(self, patient: bool) -> None:
        """Read one line, and put it where it is looked for; the caller holds the turn."""
        self._reading = True
        self._turn.release()
        line: tuple[dict[str, Any], bytes] | None = None
        broken: Exception | None = None
        try:
            line = self._wire.framed()
        except RemoteTimeout as error:
            if patient:
                raise
            broken = error
        except RemoteError as error:
            broken = error
        except Exception as error:
            # No memory, or a bug: what was read is lost, and with it where the next line begins.
            broken = RemoteError(f"{type(error).__name__} while the cluster's side was heard")
        finally:
            self._turn.acquire()
            self._reading = False
            self._broken = self._broken or broken
            if line is not None:
                self._sort(*line)
            self._turn.notify_all()

    def _sort(self, message: dict[str, Any], data: bytes) -> None:
        """Put a line aside for who waits for it."""
        if "n" not in message:
            self._open -= {q for q, word in QUESTIONS.items() if word in message}
            self._bulk.append((message, data))
        elif message["n"] in self._open:
            self._open.discard(message["n"])
            self._answers[message["n"]] = message
        else:
            said = failure_of(message, "session")
            self._broken = said or RemoteError("the cluster's side answered what was not asked")
