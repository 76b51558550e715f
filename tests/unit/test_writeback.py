"""Long files are synced while they grow, and a sync that failed is not forgotten."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from hpc_batch.bulk import WantedOutput
from hpc_batch.receiving import Receiving
from hpc_cluster import durable, files
from hpc_cluster.arrival import Arrival
from hpc_cluster.writeback import PART_BYTES, Writeback

PART = memoryview(bytes(1 << 20))
PARTS = PART_BYTES // len(PART)


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the syncs of open files."""
    seen: list[int] = []
    monkeypatch.setattr(durable, "sync_descriptor", lambda d: seen.append(os.fstat(d).st_size))
    return seen


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk fail."""

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(durable, "sync_descriptor", fail)


def test_a_long_file_is_synced_while_it_grows(tmp_path: Path, syncs: list[int]) -> None:
    descriptor = files.open_partial(str(tmp_path / "file"))
    writeback = Writeback(descriptor)
    for number in range(2 * PARTS):
        files.write_at(descriptor, PART, number * len(PART))
        writeback.wrote(len(PART))
    writeback.close()
    assert 1 <= len(syncs) <= 2
    assert syncs[0] >= PART_BYTES


def test_a_short_file_is_left_to_the_sync_at_its_end(tmp_path: Path, syncs: list[int]) -> None:
    descriptor = files.open_partial(str(tmp_path / "file"))
    writeback = Writeback(descriptor)
    writeback.wrote(PART_BYTES - 1)
    writeback.close()
    assert syncs == []


def test_an_arrival_that_could_not_be_synced_is_not_continued(
    tmp_path: Path, failing: None
) -> None:
    path = os.fsencode(tmp_path / "x.S")
    arrival = Arrival(("key", "x"), path, path)
    with pytest.raises(OSError, match="Input/output error"):
        for number in range(PARTS):
            arrival.write(number * len(PART), PART, PARTS * len(PART))
    assert os.stat(path).st_size == 0


def test_an_output_that_could_not_be_synced_is_not_continued(tmp_path: Path, failing: None) -> None:
    path, size = tmp_path / "x", (PARTS + 1) * len(PART)

    def opener() -> int:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    digest = hashlib.sha256(bytes(size)).hexdigest()
    receiving = Receiving(WantedOutput("J", 1, "x", "flat", size, opener, digest))
    for number in range(PARTS + 1):
        receiving.write(number * len(PART), PART)
    receiving.end(size)
    failure = receiving.fetched().failure
    assert failure is not None and failure.kind == "EIO"
    assert path.stat().st_size == 0
