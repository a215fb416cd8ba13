"""Tests that measure time run alone, although others run side by side.

With pytest-xdist each worker process runs its own tests. A test marked `alone` waits until the others are between two
tests and holds them there. Two file locks do it: every test passes the gate before it takes the floor, shared or
alone, so a test that waits for the floor alone keeps the gate shut and cannot be starved.
"""

from __future__ import annotations

import fcntl
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Name the marker."""
    config.addinivalue_line("markers", "alone: measures time, so no other test may run beside it")


@contextmanager
def floor(folder: Path, *, alone: bool) -> Iterator[None]:
    """Hold the floor whose two lock files lie in `folder`, shared with others or alone."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "gate").open("a") as gate, (folder / "floor").open("a") as held:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(held, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Take the floor before anything else of the test, its time limit included, begins."""
    if not hasattr(item.config, "workerinput"):
        return (yield)
    alone = item.get_closest_marker("alone") is not None
    with floor(item.config.rootpath / ".build" / "tests", alone=alone):
        return (yield)
