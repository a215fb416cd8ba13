"""A clock that tests hold in their hand."""

from __future__ import annotations

import threading
from collections.abc import Callable

START_US = 1_760_000_000_000_000


class HandClock:
    """Time passes only by waiting, and at once.

    Attributes:
        waits: every wait asked for, in seconds.
        on_wait: called after each wait: what the world did meanwhile.
    """

    def __init__(self) -> None:
        self.elapsed_s = 0.0
        self.waits: list[float] = []
        self.on_wait: Callable[[], None] = lambda: None

    def now_us(self) -> int:
        return START_US + round(self.elapsed_s * 1e6)

    def monotonic_s(self) -> float:
        return self.elapsed_s

    def wait(self, seconds: float, wake: threading.Event | None = None) -> None:
        del wake
        self.waits.append(seconds)
        self.elapsed_s += seconds
        self.on_wait()
