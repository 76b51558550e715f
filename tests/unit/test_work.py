"""What is put into an attempt's folder, on file systems that refuse or are late."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from hpc_cluster import effects, work

REFUSALS = ("EXDEV", "EPERM", "EMLINK", "ENOTSUP", "ENOSYS", "EACCES")


@pytest.mark.parametrize("code", REFUSALS)
def test_an_input_that_cannot_be_linked_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    (tmp_path / "staged").write_bytes(b"12345")

    def link(source: bytes, target: bytes) -> None:
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

    monkeypatch.setattr(effects, "link", link)
    there = os.fsencode(tmp_path / "there")
    work.give(os.fsencode(tmp_path / "staged"), there, writable=False)
    assert (tmp_path / "there").read_bytes() == b"12345"
    assert (tmp_path / "there").stat().st_mode & 0o777 == 0o400


def test_a_full_disk_is_told_and_not_worked_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "staged").write_bytes(b"12345")

    def link(source: bytes, target: bytes) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(effects, "link", link)
    with pytest.raises(OSError, match="uota"):
        work.give(os.fsencode(tmp_path / "staged"), os.fsencode(tmp_path / "there"), writable=False)


def test_a_file_that_another_node_wrote_is_looked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    sleep = time.sleep

    def arrive(seconds: float) -> None:
        if threading.current_thread() is not threading.main_thread():
            sleep(seconds)  # of something else
            return
        pauses.append(seconds)
        if len(pauses) == 2:
            (tmp_path / "late").write_bytes(b"12345")

    monkeypatch.setattr("hpc_cluster.work.time.sleep", arrive)
    assert work.insist(os.stat, os.fsencode(tmp_path / "late")).st_size == 5
    assert pauses == list(work.PAUSES_S[:2])
    with pytest.raises(FileNotFoundError):
        work.insist(os.stat, os.fsencode(tmp_path / "never"))
