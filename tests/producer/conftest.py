"""A real Redis for the producer's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gaussline.worker.broker.embedded import EmbeddedRedis
from tests.producer.line import Line
from tests.support.proxy import Proxy


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedRedis]:
    """One server for all tests of this folder."""
    with EmbeddedRedis() as running:
        yield running


@pytest.fixture
def line(server: EmbeddedRedis) -> Iterator[Line]:
    """An empty line on it."""
    client = server.client()
    client.flushall()
    yield Line(server, client)
    client.close()


@pytest.fixture
def proxy(line: Line) -> Iterator[Proxy]:
    """A proxy before the line's Redis."""
    with Proxy(line.socket_path) as running:
        yield running
