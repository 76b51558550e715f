"""Fixtures: one cluster for the whole session, and a service host before it for each test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.cluster import Cluster, bring_up
from cluster.recipe import USERS, Missing
from cluster.service import Site

NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def whole_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster; tests use `cluster`, which is whole again for each."""
    try:
        made = bring_up(tmp_path_factory.mktemp("cluster"), tied=True)
    except Missing as why:
        pytest.skip(str(why))
    try:
        yield made
    finally:
        made.host.stop()


@pytest.fixture
def cluster(whole_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with every daemon up, every node idle and no job."""
    yield whole_cluster
    whole_cluster.restore()


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path) -> Site:
    """A service host before the cluster, with a workspace of its own."""
    return Site(tmp_path, cluster, USERS[0], f"workspace{next(NUMBERS)}")
