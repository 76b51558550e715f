"""Cron mails what a pass prints, so a pass without trouble prints nothing, whatever it works on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from world import world


@pytest.mark.parametrize("name", [b"plain", b"caf\xe9 \xff", "«ä» 音".encode()])
def test_a_pass_is_silent_whatever_the_names(
    name: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with world(tmp_path) as here:
        here.drop(os.fsdecode(name), "say", args={"words": "hello"})
        assert here.until(os.fsdecode(name))
    assert capfd.readouterr() == ("", "")
    assert b"answered" in (tmp_path / "state/log").read_bytes()
