"""One set under Sentinels and one Cluster, for the tests that break nothing for good."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.replicated import ClusterSet, SentinelSet, Topology
from tests.support.skips import program

LINE = "line1"


@pytest.fixture(scope="package", params=["sentinel", "cluster"])
def topology(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topology]:
    """A master with replicas."""
    program("redis-server", "redis-server")
    folder = tmp_path_factory.mktemp(request.param)
    with SentinelSet(folder / "set") if request.param == "sentinel" else ClusterSet(folder / "set", LINE) as made:
        yield made
