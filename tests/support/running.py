"""How long this process has run: a clock that stands still while the process does.

A busy machine, a suspended virtual one or a stopped process may take a minute between two instructions. No deadline of
a test means such a minute: what it waits for stood still too.
"""

from __future__ import annotations

import os
import threading
import time

_TICK_S = 0.1
_MOST_S = 1.0
"""Most that one tick counts: a thread that had to wait longer did not run."""


class _Clock:
    """Counts in a thread of its own, one for each process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = 0
        self._counted_s = 0.0
        self._last_s = 0.0

    def now(self) -> float:
        """Seconds of running since some moment."""
        with self._lock:
            if self._pid != os.getpid():  # the thread of a parent does not come along
                self._pid = os.getpid()
                self._last_s = time.monotonic()
                threading.Thread(target=self._run, name="running", daemon=True).start()
            return self._counted_s + self._since()

    def _since(self) -> float:
        return min(_MOST_S, time.monotonic() - self._last_s)

    def _run(self) -> None:
        never = threading.Event()
        while not never.wait(_TICK_S):
            with self._lock:
                self._counted_s += self._since()
                self._last_s = time.monotonic()


_CLOCK = _Clock()


def running_s() -> float:
    """Seconds that this process has run, of any zero; differences of them are what deadlines are made of."""
    return _CLOCK.now()


running_s()  # its thread is there before a test counts threads
