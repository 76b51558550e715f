"""The folders of ssh masters: private, short, and not left for ever."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from pathlib import Path

import pytest

from hpc_batch.hosts import private_folder


def test_a_folder_is_private_and_its_socket_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    folder = private_folder.make()
    try:
        assert folder.parent == Path("/tmp")
        assert folder.stat().st_mode & 0o777 == 0o700
    finally:
        private_folder.remove(folder)
    assert not folder.exists()


def test_only_old_folders_without_a_listener_are_swept() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        base = Path(name)
        for kind in ("dead", "new", "live"):
            (base / f"hpcb-{kind}").mkdir()
        (base / "another").mkdir()
        (base / "hpcb-dead" / "passphrase").write_text("secret")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(base / "hpcb-live" / private_folder.SOCKET))
            listener.listen()
            then = time.time() - 2 * private_folder.STALE_S
            for old in ("hpcb-dead", "hpcb-live", "another"):
                os.utime(base / old, (then, then))
            private_folder.sweep(base)
        assert sorted(path.name for path in base.iterdir()) == ["another", "hpcb-live", "hpcb-new"]
