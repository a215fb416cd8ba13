"""A line on a real Redis."""

from __future__ import annotations

from tests.support.lines import server, way

__all__ = ["server", "way"]
