"""Redis's clock, as a worker knows it: the one clock by which admission, deadlines and verdicts are compared."""

from __future__ import annotations

import time
from collections.abc import Callable


class RedisClock:
    """UTC now in microseconds by Redis's clock, from the monotonic clock and an offset measured now and then.

    The worker's own wall clock is never used: it may be minutes off, and it may jump.
    """

    def __init__(self, read_time_us: Callable[[], int], monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._read_time_us = read_time_us
        self._monotonic_ns = monotonic_ns
        self._offset_us = 0
        self.measure()

    def measure(self) -> None:
        """Ask Redis for its time; half the round trip is taken as the way back."""
        before = self._monotonic_ns()
        theirs = self._read_time_us()
        after = self._monotonic_ns()
        self._offset_us = theirs - (before + after) // 2_000

    def __call__(self) -> int:
        """UTC now in microseconds since the Unix epoch."""
        return self._monotonic_ns() // 1_000 + self._offset_us
