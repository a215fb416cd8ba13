"""A server for the tests of a folder, and for each test a line of its own on it: a conftest imports what it needs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from gaussline.worker.broker.embedded import EmbeddedRedis
from tests.broker.way import Way
from tests.support.cli import Cli

_lines = itertools.count()


@pytest.fixture(scope="package")
def server() -> Iterator[EmbeddedRedis]:
    """One server for all tests of a folder."""
    with EmbeddedRedis() as running:
        yield running


@pytest.fixture
def way(server: EmbeddedRedis) -> Iterator[Way]:
    """An empty line on it."""
    line = Way(server.url, f"line{next(_lines)}")
    yield line
    line.close()


@pytest.fixture
def cli(server: EmbeddedRedis, way: Way) -> Iterator[Cli]:
    """The command line of the same line."""
    made = Cli(server.url, way.line)
    yield made
    made.close()
