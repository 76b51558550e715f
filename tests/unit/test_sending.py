"""What leaves this host and what comes back: neither what changed nor what nobody asked for."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pytest

from hpc_batch import inputs
from hpc_batch.bulk import FRAME_BYTES, Failure, Outgoing, Target, WantedOutput, WantedStream
from hpc_batch.data_channel import DataChannel
from hpc_batch.errors import RemoteError
from hpc_batch.receiving import Receiving
from hpc_batch.record import Input, Record
from hpc_batch.sending import Sending
from hpc_batch.session import Answer
from hpc_batch.staging import Staging
from hpc_batch.tidings import Announced

KEY = "c" * 32
JOB = f"01234567-0199aabbccd-{1:016x}"


class Line:
    """A flow that keeps what is sent."""

    def __init__(self) -> None:
        self.failures: dict[Any, Failure] = {}
        self.sent: list[str] = []

    def send(self, header: dict[str, Any], data: bytes = b"") -> None:
        self.sent += header


def test_nothing_of_an_input_that_changed_after_it_was_taken_is_sent(tmp_path: Path) -> None:
    """It may be large, and all of it would travel for nothing."""
    path = tmp_path / "in"
    path.write_bytes(bytes(2 * FRAME_BYTES))
    file = Outgoing(("key", KEY), str(path), inputs.examine(str(path)))
    os.utime(path, (1, 1))
    line: Any = Line()
    Sending(file, {}, line, lambda sent: None).run()
    assert line.sent == ["discard"]
    assert line.failures[file.to].kind == "changed"


def test_a_file_that_was_changed_just_now_gets_a_key_that_is_not_found_again() -> None:
    """It may be changed once more within one tick of its clock, and look the same."""
    young, old = time.time_ns() + 10**10, time.time_ns() - 10**10
    for changed, same in ((young, False), (old, True)):
        entry = Input("name", "/path", (1, changed, changed, 1))
        keys = {inputs.key_of("host", entry) for _ in range(2)}
        assert (len(keys) == 1) is same


class Failing:
    """A session and its data channel, on which files fail."""

    instance = "01234567"

    def __init__(self, failures: dict[Target, Failure]) -> None:
        self.failures = failures

    def begin_stage(self, jobs: list[str], sizes: dict[str, int]) -> Answer[Announced]:
        return Answer(lambda: Announced(frozenset()))

    def begin_send(self, files: list[Outgoing]) -> Failing:
        return self

    def wait(self) -> dict[Target, Failure]:
        return self.failures


@pytest.mark.parametrize(
    ("failure", "where"),
    [
        (Failure("changed", "it changed"), "failed"),
        (Failure("ENOENT", "it is gone"), "failed"),
        (Failure("EIO", "it cannot be read"), "stuck"),
        (Failure("ENOSPC", "no room there", here=False), "stuck"),
        (Failure("ENOENT", "it is gone there", here=False), "stuck"),
        (Failure("busy", "another session sends it", here=False), "waiting"),
        (Failure("damaged", "a frame did not match", here=False), "waiting"),
    ],
)
def test_a_failure_is_for_who_must_act(failure: Failure, where: str) -> None:
    """What is merely waited for is no trouble, and is never answered with an error."""
    entry = Input("name", "/path", (1, 0, 0, 1))
    job = Record(JOB, "STAGING", "a.job", "/box", "host", "/work", inputs=(entry,))
    cluster: Any = Failing({("job", JOB, 0): failure})
    result = Staging(cluster, cluster, cluster, lambda: cluster).stage([job])
    found = {kind for kind in ("failed", "stuck", "waiting") if getattr(result, kind)}
    assert found == {where} and not result.ready


# ---- back ----------------------------------------------------------------------------------------


def wanted(path: Path, size: int) -> WantedOutput:
    def opener() -> int:
        return os.open(path, os.O_RDWR | os.O_CREAT)

    return WantedOutput(
        job=JOB, attempt=1, name="o", layout="flat", bytes=size, opener=opener, sha256="0" * 64
    )


def test_a_temporary_that_holds_more_than_the_output_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "temporary"
    path.write_text("12345")
    asked = Receiving(wanted(path, 3)).request()
    assert (asked["offset"], asked["bytes"]) == (0, 3)
    assert path.read_text() == ""


@pytest.mark.parametrize(("offset", "data"), [(1, b"12"), (0, b"1234")])
def test_bytes_that_were_not_asked_for_are_refused(
    tmp_path: Path, offset: int, data: bytes
) -> None:
    receiving = Receiving(wanted(tmp_path / "temporary", 3))
    with pytest.raises(RemoteError, match="not asked for"):
        receiving.write(offset, memoryview(data))


class Telling:
    """A wire on which one frame of a stream comes."""

    def __init__(self, data: bytes, sha256: str) -> None:
        self._data = data
        self._lines: list[dict[str, Any]] = [
            {"item": 0, "offset": 0, "bytes": len(data), "sha256": sha256},
            {"item": 0, "end": True, "size": len(data)},
            {"got": True},
        ]

    def send(self, value: object, data: bytes | memoryview = b"") -> None:
        return

    def answer(self, verb: str) -> dict[str, Any]:
        return self._lines.pop(0)

    def exactly(self, size: int) -> memoryview:
        return memoryview(self._data)[:size]

    def close(self) -> None:
        return


def test_a_frame_with_another_hash_is_refused_where_nothing_else_would_tell() -> None:
    """Nobody has said what the whole of a stream is."""

    def fetched(sha256: str) -> bytes:
        channel = DataChannel(Telling(b"xxx", sha256), lambda: None)
        (found,) = channel.fetch([WantedStream(JOB, 1, "stdout", head=10, tail=0)])
        return found.head

    assert fetched(hashlib.sha256(b"xxx").hexdigest()) == b"xxx"
    with pytest.raises(RemoteError, match="hash"):
        fetched(hashlib.sha256(b"xxy").hexdigest())
