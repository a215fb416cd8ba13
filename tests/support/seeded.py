"""Hypothesis draws the same examples in every run, at home as in CI; a test that is slow once does not fail for it."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("seeded", derandomize=True, database=None, deadline=None, print_blob=True)
settings.load_profile("seeded")
