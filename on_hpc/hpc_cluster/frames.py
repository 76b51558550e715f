"""Bulk at its far end: files arrive and leave as frames.

A frame is one JSON line with target, offset, size and sha256, and then the bytes. Requests:

    open     what the store has of larger files, so that they continue where they stopped
    frame    bytes for inputs/KEY.S or jobs/J/inN.S; not answered, but for an `ack` every few MiB
    discard  the file changed at its source: throw away what came
    sync     make all complete files durable, as one batch, and give them their names, which those
             of the store keep from then on, and those of a job when it is loaded
    get      send outputs and the ends of streams; `plain`: without a hash for each frame, where
             the near end knows that of the whole file

A target that fails (a full disk, a frame that does not match its hash) is refused once, with the
errno's name; its further frames are dropped and the other targets go on. When the channel ends,
beginnings of stored files are released for a later session.

A far end that is late does no harm: it writes only names with its session in them, and gives a
job's file its name only while the job's ticket of this very session lies in incoming/.
"""

import errno
import hashlib
import os
import time
from typing import Any, Dict, List, Optional, Tuple

from hpc_cluster import durable, files, ticket
from hpc_cluster.arrival import Arrival, Refused, Target, reason
from hpc_cluster.channel import Channel, Misspoken
from hpc_cluster.spool import Spool
from hpc_cluster.store import KEY, Store

FRAME_BYTES = 1 << 20
"""Files are sent in frames of this size; it fits a core's cache."""

MOST_BYTES = 4 << 20
"""No frame is larger, either way."""

ACK_BYTES = 4 << 20
"""An acknowledgement is sent at least this often. The near end keeps 32 MiB under way."""

RENEW_S = 30
"""Tickets in incoming are touched this often while bytes arrive; a pilot waits 10 min for them."""

INPUTS = 1000000
"""A job's inputs are numbered below this."""


class Frames:
    """The conversation on one data channel."""

    def __init__(self, spool: Spool, session: str, instance: str, channel: Channel) -> None:
        self._spool = spool
        self._session = session
        self._instance = instance
        self._channel = channel
        self._store = Store(spool.path("inputs"), session)
        self._arrivals: Dict[Target, Arrival] = {}
        self._current: Optional[Arrival] = None
        self._received = self._acknowledged = 0
        self._renewed = time.monotonic()

    def perform(self, request: Dict[str, Any]) -> None:
        """Answer one request. Raises Misspoken, Ended."""
        if "frame" in request:
            self._frame(request["frame"])
        elif "discard" in request:
            self._discard(self._target(request["discard"]))
        elif "open" in request:
            self._channel.say({"opened": self._open(request["open"])})
        elif "sync" in request:
            failed = self._sync()
            self._received = self._acknowledged = 0
            self._channel.say({"synced": {"failed": failed}})
        elif "get" in request:
            self._get(request["get"])
        else:
            raise Misspoken(f"unknown request: {sorted(request)}")

    def release(self) -> None:
        """Leave beginnings of stored files to a later session, and remove those of jobs."""
        for arrival in self._arrivals.values():
            try:
                arrival.close()
                if arrival.stored:
                    self._store.release(arrival.target[1])
                else:
                    files.unlink(arrival.temporary)
            except OSError:
                # What stays is found by its name: continued, or removed after 36 h.
                continue
        self._arrivals = {}

    # ---- in ----------------------------------------------------------------------------------

    def _open(self, value: Any) -> List[Dict[str, Any]]:
        """Tell what the store has of files."""
        if not isinstance(value, list) or not all(
            isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], int) for pair in value
        ):
            raise Misspoken(f"no keys: {value!r}")
        sizes = {str(self._target(["key", key])[1]): size for key, size in value}
        missing = set(self._store.wanted(sizes.items()))
        begun = self._store.begin_all(missing)
        answer = []
        for key, size in sizes.items():
            if key not in missing:
                answer.append({"key": key, "present": True})
            elif begun[key].busy:
                answer.append({"key": key, "busy": True})
            else:
                answer.append(self._beginning(key, begun[key].offset, size))
        return answer

    def _beginning(self, key: str, offset: int, size: int) -> Dict[str, Any]:
        """Tell how many of `size` bytes are there, and their hash."""
        if not 0 < offset <= size:
            return {"key": key, "offset": 0}
        digest, have = hashlib.sha256(), 0
        with open(self._arrival(("key", key)).temporary, "rb") as file:
            while have < offset:
                data = file.read(min(1 << 20, offset - have))
                if not data:
                    break
                digest.update(data)
                have += len(data)
        return {"key": key, "offset": have, "sha256": digest.hexdigest()}

    def _frame(self, header: Any) -> None:
        """Take a frame and write it."""
        size, total = _count(header, "bytes"), _count(header, "total")
        offset = _count(header, "offset")
        target = self._target(header.get("to"))
        if size > MOST_BYTES or offset + size > total:
            raise Misspoken(f"a frame of {size} bytes at {offset} of {total}")
        data = self._channel.exactly(size)
        self._received += size
        arrival = self._arrival(target)
        if not arrival.failed:
            try:
                self._follow(arrival)
                if hashlib.sha256(data).hexdigest() != header.get("sha256"):
                    raise Refused("damaged", "a frame did not match its hash")
                arrival.write(offset, data, total)
            except (Refused, OSError) as error:
                self._channel.say({"refused": self._refuse(arrival, error)})
        if self._received - self._acknowledged >= ACK_BYTES:
            self._acknowledged = self._received
            self._channel.say({"ack": self._received})
        self._renew()

    def _follow(self, arrival: Arrival) -> None:
        """Keep one file open at a time."""
        before, self._current = self._current, arrival
        if before is None or before is arrival:
            return
        try:
            before.close()
        except OSError as error:
            self._channel.say({"refused": self._refuse(before, error)})

    def _refuse(self, arrival: Arrival, error: Exception) -> Dict[str, Any]:
        """Note that a target failed, and return how the near end is told."""
        arrival.failed = True
        try:
            arrival.close()
            if not arrival.stored:
                files.unlink(arrival.temporary)
        except OSError:
            pass  # the first error is the one to report
        word, message = reason(error)
        return {"to": list(arrival.target), "errno": word, "message": message}

    def _discard(self, target: Target) -> None:
        """Throw away what came of a file, as if it had never been sent."""
        arrival = self._arrival(target)
        try:
            arrival.close()
        except OSError:
            pass  # nothing of it is wanted any more
        files.unlink(arrival.temporary)
        del self._arrivals[target]

    def _sync(self) -> List[Dict[str, Any]]:
        """Arriving to complete, for everything that has come; return what failed.

        What has not come, or failed before, is released: a second try begins with `open`.
        """
        ready = [a for a in self._arrivals.values() if a.complete]
        failed: List[Dict[str, Any]] = []

        def attempt(arrival: Arrival, act: Any) -> None:
            try:
                act(arrival)
            except (Refused, OSError) as error:
                failed.append(self._refuse(arrival, error))

        now = self._store.now() if any(a.stored for a in ready) else 0
        for arrival in ready:
            attempt(arrival, lambda a: self._seal(a, now))
        ready = [a for a in ready if not a.failed]
        try:
            durable.sync_files([a.temporary for a in ready])
        except OSError:
            for arrival in ready:
                attempt(arrival, lambda a: durable.sync_file(a.temporary))
        for arrival in ready:
            if not arrival.failed:
                attempt(arrival, lambda a: files.rename(a.temporary, a.final))
        done = [a for a in ready if not a.failed]
        durable.sync_folders(os.path.dirname(a.final) for a in done if a.stored)
        for arrival in done:
            del self._arrivals[arrival.target]
        self.release()
        return failed

    def _seal(self, arrival: Arrival, now: int) -> None:
        """Make a complete file read-only; a job's file only while the job is ours to stage."""
        arrival.close()
        if arrival.stored:
            self._store.seal(arrival.target[1], now)
            return
        self._fence(arrival.target)
        files.change_mode(arrival.temporary, 0o400)

    def _fence(self, target: Target) -> None:
        if not files.exists(self._spool.incoming_path(target[1], self._session)):
            raise Refused("ESTALE", "the job is not being staged by this session")

    def _arrival(self, target: Target) -> Arrival:
        """Return the record of a target, made when it is new."""
        arrival = self._arrivals.get(target)
        if arrival is None:
            if target[0] == "key":
                names = self._store.arriving(target[1]), self._store.path(target[1])
            else:
                final = self._spool.input_path(target[1], target[2])
                names = final + files.to_bytes("." + self._session), final
            arrival = self._arrivals[target] = Arrival(target, *names)
        return arrival

    def _target(self, value: Any) -> Target:
        """Check where a file is to go. Raises Misspoken."""
        if isinstance(value, list) and value and all(isinstance(v, (str, int)) for v in value):
            if value[0] == "key" and len(value) == 2 and KEY.fullmatch(str(value[1])):
                return ("key", str(value[1]))
            job = value[0] == "job" and len(value) == 3 and ticket.is_job(str(value[1]))
            if job and isinstance(value[2], int) and 0 <= value[2] < INPUTS:
                return ("job", str(value[1]), int(value[2]))
        raise Misspoken(f"no target: {value!r}")

    def _renew(self) -> None:
        """Show pilots that jobs are still coming."""
        if time.monotonic() - self._renewed < RENEW_S:
            return
        self._renewed = time.monotonic()
        tickets = self._spool.tickets("incoming", self._instance)
        mine = [t.job for t in tickets if t.session == self._session]
        self._spool.renew(mine, self._session)

    # ---- out ---------------------------------------------------------------------------------

    def _get(self, items: Any) -> None:
        """Stream what is wanted, in order; an item that cannot be read says why."""
        for number, item in enumerate(items):
            try:
                descriptor = self._open_wanted(item)
            except OSError as error:
                word, message = reason(error)
                failure = {"errno": word, "message": message}
                self._channel.say({"item": number, "error": failure}, more=True)
                continue
            try:
                self._stream(number, item, descriptor)
            finally:
                os.close(descriptor)
        self._channel.say({"got": True})

    def _open_wanted(self, item: Any) -> int:
        """Open what an item names. Raises OSError, Misspoken."""
        if not isinstance(item, dict) or not ticket.is_job(str(item.get("job"))):
            raise Misspoken(f"no item: {item!r}")
        folder = self._spool.attempt_folder(item["job"], _count(item, "attempt"))
        what = item.get("what")
        if what in ("stdout", "stderr"):
            return files.open_inside(folder, what)
        if what != "output" or item.get("layout") not in ("flat", "split"):
            raise Misspoken(f"no item: {item!r}")
        way = ("work", "output") if item["layout"] == "split" else ("work",)
        return files.open_inside(folder, *(way + (str(item.get("name")),)))

    def _stream(self, number: int, item: Dict[str, Any], descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        plain = item.get("plain") is True
        memory = memoryview(bytearray(min(FRAME_BYTES, size)))
        for begin, end in _parts(item, size):
            os.lseek(descriptor, begin, os.SEEK_SET)
            while begin < end:
                try:
                    data = memory[: os.readv(descriptor, [memory[: end - begin]])]
                    if not data:
                        raise OSError(errno.EIO, "the file became shorter")
                except OSError as error:
                    word, message = reason(error)
                    failure = {"errno": word, "message": message}
                    self._channel.say({"item": number, "error": failure}, more=True)
                    return
                header: Dict[str, Any] = {"item": number, "offset": begin, "bytes": len(data)}
                if not plain:
                    header["sha256"] = hashlib.sha256(data).hexdigest()
                self._channel.say(header, data, more=True)
                begin += len(data)
        self._channel.say({"item": number, "end": True, "size": size}, more=True)


def _parts(item: Dict[str, Any], size: int) -> List[Tuple[int, int]]:
    """Return the ranges of a file that an item asks for."""
    if item["what"] == "output":
        offset = _count(item, "offset")
        return [(offset, min(size, offset + _count(item, "bytes")))]
    head, tail = _count(item, "head"), _count(item, "tail")
    if size <= head + tail:
        return [(0, size)]
    return [(0, head), (size - tail, size)]


def _count(fields: Any, name: str) -> int:
    """Return a number from a request. Raises Misspoken."""
    value = fields.get(name) if isinstance(fields, dict) else None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise Misspoken(f"{name} is no count: {value!r}")
    return value
