"""The hand-over from compute to settle: whatever lane was faster, batches leave in the order they were handed over.

So verdicts of one camera keep the order of its frames. A batch that is done before an older one waits for it, which is
less than one batch's time: the older one was begun earlier. What never had a place in that order, such as a message
that was refused at intake, goes through at once.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Outlet(Generic[T]):
    """Many writers, one reader. Unbounded by itself, bounded by the credit: what is in it was paid for at intake."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._ready: deque[T] = deque()
        self._early: dict[int, T | None] = {}
        self._next = 0
        self._closed = False

    def put(self, item: T, number: int | None = None) -> None:
        """Append an item: that of batch `number`, or one without a place in the order."""
        with self._changed:
            if number is None:
                self._ready.append(item)
            else:
                self._arrived(number, item)
            self._changed.notify()

    def skip(self, number: int) -> None:
        """Batch `number` will never come; those behind it need not wait for it."""
        with self._changed:
            self._arrived(number, None)
            self._changed.notify()

    def _arrived(self, number: int, item: T | None) -> None:
        self._early[number] = item
        while self._next in self._early:
            found = self._early.pop(self._next)
            self._next += 1
            if found is not None:
                self._ready.append(found)

    def take(self, timeout_s: float, most: int) -> list[T]:
        """What has come, oldest first, at most `most`; waits for the first of it, at most `timeout_s`."""
        with self._changed:
            end = self._monotonic() + timeout_s
            while not self._ready and not self._closed and (left := end - self._monotonic()) > 0:
                self._changed.wait(left)
            return [self._ready.popleft() for _ in range(min(most, len(self._ready)))]

    def close(self) -> None:
        """Nothing more will come."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    @property
    def finished(self) -> bool:
        """Closed, and everything was taken."""
        with self._changed:
            return self._closed and not self._ready
