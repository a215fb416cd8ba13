"""A line with verdicts on a real Redis, and its command line."""

from __future__ import annotations

from tests.support.lines import cli, server, way

__all__ = ["cli", "server", "way"]
