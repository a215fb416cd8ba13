"""A monitored line, and models and parts for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gaussline.worker.broker.embedded import EmbeddedRedis
from tests.commands.conftest import artefact, model_file, parts
from tests.monitoring.site import Site

__all__ = ["artefact", "model_file", "parts"]


@pytest.fixture
def site(tmp_path: Path, model_file: Path) -> Iterator[Site]:
    """A line with a promoted model and Prometheus beside it."""
    with EmbeddedRedis() as server, Site(server, tmp_path) as made:
        made.cli("models", "import", str(model_file))
        made.cli("models", "promote", "default", "1")
        yield made
