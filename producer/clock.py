"""The camera computer's clock, as one object that tests replace."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Two times and a way to let them pass."""

    def now_us(self) -> int:
        """UTC now, microseconds since the Unix epoch: what a capture time is told by."""

    def monotonic_s(self) -> float:
        """Seconds that never run backwards: what waits and rates are told by."""

    def wait(self, seconds: float, wake: threading.Event | None = None) -> None:
        """Return after `seconds`, or as soon as `wake` is set."""


class SystemClock:
    """The machine's own clock."""

    def now_us(self) -> int:
        """UTC now, microseconds since the Unix epoch."""
        return time.time_ns() // 1_000

    def monotonic_s(self) -> float:
        """Seconds since some moment; never runs backwards."""
        return time.monotonic()

    def wait(self, seconds: float, wake: threading.Event | None = None) -> None:
        """Return after `seconds`, or as soon as `wake` is set."""
        if wake is None:
            time.sleep(max(0.0, seconds))
        else:
            wake.wait(max(0.0, seconds))
