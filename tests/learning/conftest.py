"""A server, and a line of its own for each test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from gaussline.worker.broker.embedded import EmbeddedRedis
from tests.support.cli import Cli

_lines = itertools.count()


@pytest.fixture(scope="package")
def server() -> Iterator[EmbeddedRedis]:
    """One server for all tests of this folder."""
    with EmbeddedRedis() as running:
        yield running


@pytest.fixture
def cli(server: EmbeddedRedis) -> Iterator[Cli]:
    """The command line of a line of its own."""
    line = Cli(server.url, f"learn{next(_lines)}")
    yield line
    line.close()
