"""Waiting for a condition with a deadline: what tests do instead of sleeping."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from tests.support.running import running_s

T = TypeVar("T")


def eventually(
    look: Callable[[], T], *, within_s: float = 20.0, what: str = "the condition", every_s: float = 0.01
) -> T:
    """The first true answer of `look`; AssertionError where none came in time, which is time that this process ran."""
    pause = threading.Event()
    end = running_s() + within_s
    while True:
        answer = look()
        if answer:
            return answer
        assert running_s() < end, f"{what} did not come true within {within_s:g} s"
        pause.wait(every_s)
