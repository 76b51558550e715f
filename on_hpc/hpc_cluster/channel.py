"""The far end's side of a channel: lines and bytes in, lines and bytes out.

The near end pings every 20 s. When nothing comes for SILENCE_S while this end waits for input, or
while it cannot write, nobody is there any more and the far end leaves, so that it never acts long
after its pass is over. While a request takes long, a thread writes a line every ALIVE_S that says
so.
"""

import json
import os
import select
import threading
import time
from contextlib import contextmanager
from typing import Any, Dict, Iterator, Union

from hpc_cluster import effects, files, threads

SILENCE_S = 60
"""The near end sends something at least every 20 s."""

STUCK_S = 600
"""A near end that pings but reads nothing for so long will not read any more."""

ALIVE_S = 20
"""The near end gives up after 90 s without a line."""

LINE_BYTES = 256 << 20
"""No request is longer."""

READ_BYTES = 1 << 16

TOGETHER_BYTES = 1 << 16
"""Lines and bytes that are shorter are written together."""


class Ended(Exception):
    """The near end has gone: end of input, a broken pipe, or silence."""


class Misspoken(Exception):
    """The near end sent what is no request; the channel cannot be trusted to be in step."""


class Channel:
    """Two descriptors and what was read ahead. One thread reads; any may write."""

    def __init__(
        self, reader: int, writer: int, silence_s: float = SILENCE_S, alive_s: float = ALIVE_S
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._silence_s = silence_s
        self._alive_s = alive_s
        self._buffer = bytearray()
        self._bulk = bytearray()
        self._unsaid = bytearray()
        self._writing = threading.Lock()
        self._working = False
        self._heard = time.monotonic()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        threads.start(self._say_alive, "alive")

    # ---- in ----------------------------------------------------------------------------------

    def request(self) -> Dict[str, Any]:
        """Return the next request, pings left out. Raises Ended, Misspoken."""
        while True:
            value = _object(self.line())
            if "ping" not in value:
                return value

    def line(self) -> bytes:
        """Return the next line without its end."""
        searched = 0
        while True:
            end = self._buffer.find(b"\n", searched)
            if end >= 0:
                found = bytes(self._buffer[:end])
                del self._buffer[: end + 1]
                return found
            searched = len(self._buffer)
            if searched > LINE_BYTES:
                raise Misspoken("a line without an end")
            self._await_input()
            self._read()

    def exactly(self, size: int) -> memoryview:
        """Return the next `size` bytes, in a memory that the next call uses again."""
        if len(self._bulk) < size:
            self._bulk = bytearray(size)
        view = memoryview(self._bulk)[:size]
        have = min(size, len(self._buffer))
        view[:have] = self._buffer[:have]
        del self._buffer[:have]
        while have < size:
            try:
                count = os.readv(self._reader, [view[have:]])
            except BlockingIOError:
                self._await_input()
                continue
            if not count:
                raise Ended("end of input")
            have += count
        return view

    def pause(self, seconds: float) -> bool:
        """Sleep, but notice when the near end goes, or asks something: then at once, with True.

        Raises Ended, Misspoken.
        """
        until = time.monotonic() + seconds
        while not self._is_asked():
            left = until - time.monotonic()
            if left <= 0:
                return False
            if select.select([self._reader], [], [], left)[0]:
                self._read()
            elif time.monotonic() - self._heard > self._silence_s:
                raise Ended("silence")
        return True

    def has_input(self, patience_s: float = 0.0) -> bool:
        """Tell whether something comes that was not taken yet, or the near end goes, by then."""
        return bool(self._buffer) or bool(select.select([self._reader], [], [], patience_s)[0])

    def _is_asked(self) -> bool:
        """Tell whether a request has been read ahead; pings before it are dropped."""
        while True:
            end = self._buffer.find(b"\n")
            if end < 0:
                return False
            if "ping" not in _object(bytes(self._buffer[:end])):
                return True
            del self._buffer[: end + 1]

    def _await_input(self) -> None:
        if not select.select([self._reader], [], [], self._silence_s)[0]:
            raise Ended("silence")

    def _read(self) -> None:
        """Take what has come."""
        try:
            data = os.read(self._reader, READ_BYTES)
        except BlockingIOError:
            # RACE: none; select(2) may tell of input that is not there.
            return
        if not data:
            raise Ended("end of input")
        self._buffer += data
        self._heard = time.monotonic()

    # ---- out ---------------------------------------------------------------------------------

    def say(
        self, value: Dict[str, Any], data: Union[bytes, memoryview] = b"", *, more: bool = False
    ) -> None:
        """Write one line, and the bytes that belong to it. Raises Ended.

        `more`: another follows at once, and what is short may wait for it.
        """
        with self._writing:
            self._unsaid += files.to_json(value)
            if len(data) < TOGETHER_BYTES:
                self._unsaid += data
                data = b""
            if not more or data or len(self._unsaid) >= TOGETHER_BYTES:
                said, self._unsaid = self._unsaid, bytearray()
                self._write(said)
                self._write(data)

    def write(self, data: bytes) -> None:
        """Write bytes as they are."""
        with self._writing:
            self._write(data)

    @contextmanager
    def working(self) -> Iterator[None]:
        """While this lasts, the near end is told every ALIVE_S that this end is alive."""
        self._working = True
        try:
            yield
        finally:
            self._working = False

    def _write(self, data: Union[bytes, bytearray, memoryview]) -> None:
        view, since = memoryview(data), time.monotonic()
        while view:
            try:
                view = view[effects.send(self._writer, view) :]
                since = time.monotonic()
            except BlockingIOError:
                # A near end that is busy with its own disk still pings, on the other stream: those
                # bytes wait in the kernel, and mean that somebody was there lately.
                select.select([], [self._writer], [], min(1, self._silence_s))
                pinged = select.select([self._reader], [], [], 0)[0]
                if time.monotonic() - since > (STUCK_S if pinged else self._silence_s):
                    raise Ended("nobody reads") from None
            except OSError as error:
                raise Ended(str(error)) from error

    def _say_alive(self) -> None:
        while True:
            time.sleep(self._alive_s)
            if self._working:
                try:
                    self.say({"alive": 1})
                except Ended:
                    return


def _object(line: bytes) -> Dict[str, Any]:
    """Return the JSON object in a line. Raises Misspoken."""
    try:
        value = json.loads(line.decode("utf-8"))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Misspoken(f"no JSON object: {line[:200]!r}")
    return value
