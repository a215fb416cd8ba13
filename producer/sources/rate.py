"""Pacing: an open-loop schedule, as a line has that does not wait for its inspection."""

from __future__ import annotations

import threading

from gaussline.producer.clock import Clock, SystemClock
from gaussline.worker.errors import SettingsError


class Pace:
    """Moments start, start + 1/rate, start + 2/rate, …

    The schedule is fixed by its first moment and never moves: who comes late is let through at once until he has caught
    up. A schedule that moved with every delay would hide how late the frames are (the "coordinated omission" of load
    tests).

    Args:
        rate_hz: moments a second.
    """

    def __init__(self, rate_hz: float, clock: Clock | None = None) -> None:
        if not 0 < rate_hz <= 1e6:
            raise SettingsError(f"a rate of {rate_hz} frames a second is not between 0 and 1,000,000")
        self.rate_hz = rate_hz
        self._clock: Clock = clock or SystemClock()
        self._start_s: float | None = None
        self._count = 0
        self.late_s = 0.0
        """How late the last moment was met."""

    def wait(self, wake: threading.Event | None = None) -> None:
        """Return at the next moment, at once where it has passed, or as soon as `wake` is set."""
        now_s = self._clock.monotonic_s()
        if self._start_s is None:
            self._start_s = now_s
        due_s = self._start_s + self._count / self.rate_hz
        self._count += 1
        if due_s > now_s:
            self._clock.wait(due_s - now_s, wake)
            now_s = self._clock.monotonic_s()
        self.late_s = max(0.0, now_s - due_s)
