"""What a user of a soak prepares for a drop."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from soak import kinds


def test_a_drop_that_cannot_be_prepared_leaves_nothing_at_its_outputs(tmp_path: Path) -> None:
    """As on a full disk; nobody asked for such a file, and no answer tells of it."""
    for name in ("in", "out", "out/w.second"):
        (tmp_path / name).mkdir()
    with pytest.raises(OSError):
        kinds.make("w", "w", "over", tmp_path, "journal", random.Random(1))
    assert os.listdir(tmp_path / "out") == ["w.second"]
