"""A server, and a line of its own for each test."""

from __future__ import annotations

from tests.support.lines import cli, server, way

__all__ = ["cli", "server", "way"]
