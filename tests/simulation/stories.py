"""Stories that failed once, each by the name of what went wrong: a seed, and what happened."""

from __future__ import annotations

from typing import Any

KEPT: dict[str, tuple[int, list[tuple[Any, ...]]]] = {
    "a full dropbox before the first pass is no error of the configuration": (
        0,
        [("fill", "A/dropbox"), ("run", "A", None)],
    ),
}
