"""A TCP proxy on loopback that makes a line slow, silent or broken, for tests.

    with Proxy(server.port, delay_s=0.015) as line:      # 30 ms round trip
        host = hosts.connect(server.remote("fabric", port=line.port, ...))
        line.cut_after(up=5_000_000)

"up" is what the client sends, "down" what it receives. `stall` lets nothing pass in either
direction and closes nothing, like a firewall that forgot the connection; `cut` resets every open
connection. It runs in a thread of its own; all methods may be called from any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any

READ_BYTES = 1 << 18
QUEUE_LENGTH = 64
"""READ_BYTES * QUEUE_LENGTH = 16 MiB in flight: more than a delayed loopback line can use."""


class Proxy:
    """Carries connections from a port of its own to 127.0.0.1:`target`."""

    def __init__(self, target: int, delay_s: float = 0.0, rate: int | None = None) -> None:
        self.target = target
        self.delay_s = delay_s
        self.rate = rate
        """Bytes a second that pass upwards; None: as many as can."""
        self.port = 0
        self.connections = 0
        self.bytes = {"up": 0, "down": 0}
        self._limits: dict[str, int] = {}
        self._stall_at: int | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    @property
    def up_bytes(self) -> int:
        """Return how many bytes the clients' side has sent through."""
        return self.bytes["up"]

    @property
    def down_bytes(self) -> int:
        """Return how many bytes the clients have received."""
        return self.bytes["down"]

    def cut_after(self, *, up: int | None = None, down: int | None = None) -> None:
        """Reset every connection once so many further bytes have passed in a direction."""

        def change() -> None:
            if up is not None:
                self._limits["up"] = self.bytes["up"] + up
            if down is not None:
                self._limits["down"] = self.bytes["down"] + down

        self._call(change)

    def stall_after(self, *, down: int) -> None:
        """Let nothing pass once the clients have received so many further bytes."""

        def change() -> None:
            self._stall_at = self.bytes["down"] + down

        self._call(change)

    def cut(self) -> None:
        """Reset every open connection now."""
        self._call(self._cut)

    def stall(self) -> None:
        """Let nothing pass from now on."""
        self._call(self._flowing.clear)

    def resume(self) -> None:
        """Let everything pass again."""
        self._call(self._flowing.set)

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._call(self._end)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _call(self, function: Callable[[], None]) -> None:
        done = threading.Event()

        def call() -> None:
            function()
            done.set()

        self._loop.call_soon_threadsafe(call)
        done.wait()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._flowing.set()
        server = self._loop.run_until_complete(
            asyncio.start_server(self._carry, "127.0.0.1", 0, limit=READ_BYTES)
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        if self._tasks:
            self._loop.run_until_complete(asyncio.wait(set(self._tasks)))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def _end(self) -> None:
        self._cut()
        for task in self._tasks:
            task.cancel()

    async def _carry(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._spawn(self._connection(near, back))

    async def _connection(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        self._writers.add(back)
        try:
            far, forth = await asyncio.open_connection("127.0.0.1", self.target, limit=READ_BYTES)
        except OSError:
            back.transport.abort()
            return
        self._writers.add(forth)
        for writer in (back, forth):
            wire: socket.socket = writer.get_extra_info("socket")
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pumps = [self._pump("up", near, forth), self._pump("down", far, back)]
        try:
            await asyncio.gather(*pumps)
        finally:
            for writer in (back, forth):
                writer.close()
                self._writers.discard(writer)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pump(
        self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUE_LENGTH)
        self._spawn(self._take(reader, queue))
        with contextlib.suppress(OSError):
            while True:
                due, data = await queue.get()
                wait_s = due - self._loop.time()
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
                await self._flowing.wait()
                if not data:
                    break
                allowed = self._limits.get(way, self.bytes[way] + len(data)) - self.bytes[way]
                writer.write(data[:allowed])
                self.bytes[way] += len(data[:allowed])
                if self._stall_at is not None and self.bytes["down"] >= self._stall_at:
                    self._flowing.clear()
                await writer.drain()
                if self.rate and way == "up":
                    await asyncio.sleep(len(data) / self.rate)
                if allowed <= len(data) and way in self._limits:
                    del self._limits[way]
                    self._cut()
            writer.write_eof()

    async def _take(
        self, reader: asyncio.StreamReader, queue: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        while True:
            await self._flowing.wait()
            try:
                data = await reader.read(READ_BYTES)
            except OSError:
                data = b""
            await queue.put((self._loop.time() + self.delay_s, data))
            if not data:
                break

    def _cut(self) -> None:
        for writer in self._writers:
            wire = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                # Linger for 0 s: closing sends a reset.
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        self._writers.clear()
