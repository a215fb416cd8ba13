"""Programs that come with the development environment, beside its Python."""

from __future__ import annotations

import sys
from pathlib import Path


def tool(name: str) -> str:
    """Where a program of the environment lies; AssertionError where it is not, for pyproject.toml brings it."""
    found = Path(sys.executable).with_name(name)
    assert found.exists(), f"{found} is not there: make environment"
    return str(found)
