"""Fixtures with real programs behind them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from integration.sshd import MISSING, Sshd, running

from hpc_batch.config import Remote


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """One sshd for the tests that only need some."""
    if MISSING:
        pytest.skip(MISSING)
    with running(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture(params=["fabric", "openssh"])
def ssh_transport(request: pytest.FixtureRequest) -> str:
    """Each transport that speaks SSH."""
    return str(request.param)


@pytest.fixture(params=["local", "fabric", "openssh"])
def remote(request: pytest.FixtureRequest) -> Remote:
    """The [remote] settings of each transport, with the sshd behind them where it is needed."""
    if request.param == "local":
        return Remote(transport="local")
    server: Sshd = request.getfixturevalue("sshd")
    return server.remote(request.param)
