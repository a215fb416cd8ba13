"""Registers the plugins of all tests; pytest takes `pytest_plugins` only from the folder it starts in."""

from __future__ import annotations

pytest_plugins = ["pytester", "tests.support.skips", "tests.support.alone", "tests.support.seeded"]
