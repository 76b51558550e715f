"""Fixtures that any test may use."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The top of the source tree."""
    return Path(__file__).resolve().parent.parent


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Let reports with names that are no UTF-8 travel between the processes of pytest-xdist."""
    return _encodable((yield))


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(element) for key, element in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_encodable(element) for element in value)
    return value
