"""Waiting for a condition with a deadline: what tests do instead of sleeping."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(
    look: Callable[[], T], *, within_s: float = 20.0, what: str = "the condition", every_s: float = 0.01
) -> T:
    """The first true answer of `look`; AssertionError where none came in time."""
    pause = threading.Event()
    end = time.monotonic() + within_s
    while True:
        answer = look()
        if answer:
            return answer
        assert time.monotonic() < end, f"{what} did not come true within {within_s:g} s"
        pause.wait(every_s)
