"""The hand-over from intake to compute: a batcher behind a lock, on which compute sleeps until a batch is due."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from gaussline.worker.engine.batcher import Batcher

T = TypeVar("T")


class Handover(Generic[T]):
    """Bounded by the credit of whoever fills it. Closing it flushes what is left."""

    def __init__(self, batcher: Batcher[T], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._batcher = batcher
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._closed = False

    def put(self, items: Iterable[T]) -> None:
        """Append items; they arrived now."""
        with self._changed:
            self._batcher.add(items, self._monotonic())
            self._changed.notify()

    def get(self, timeout_s: float) -> list[T]:
        """The next batch, waiting at most `timeout_s` for it; an empty list where none came due."""
        with self._changed:
            end = self._monotonic() + timeout_s
            while True:
                now = self._monotonic()
                batch = self._batcher.pop(now, flush=self._closed)
                if batch or self._closed or now >= end:
                    return batch
                remaining = self._batcher.remaining_s(now)
                self._changed.wait(end - now if remaining is None else min(remaining, end - now))

    def close(self) -> None:
        """Nothing more will come: waiting batches are due at once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def finished(self) -> bool:
        """Closed and empty."""
        with self._changed:
            return self._closed and not len(self._batcher)
