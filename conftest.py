"""Registers the plugins of all tests; pytest takes `pytest_plugins` only from the folder it starts in."""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts its background jobs so, and the commands under test would inherit that no Ctrl-C reaches them.
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["pytester", "tests.support.skips", "tests.support.alone", "tests.support.seeded"]
