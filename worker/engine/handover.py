"""The hand-over from intake to compute: a batcher behind a lock, on which the lanes sleep until a batch is due.

A lane that waits may be useful meanwhile: it is lent the items that arrive, each once, to make them ready.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from gaussline.worker.engine.batcher import Batcher

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Batch(Generic[T]):
    """One batch and its place in the order of hand-over, from 0 without a gap."""

    number: int
    items: list[T]


class Handover(Generic[T]):
    """Bounded by the credit of whoever fills it. Any number of lanes take from it. Closing it flushes what is left."""

    def __init__(self, batcher: Batcher[T], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._batcher = batcher
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._closed = False
        self._handed = 0
        self._lent = 0
        """So many items at the head of the queue were lent already."""

    def put(self, items: Iterable[T]) -> None:
        """Append items; they arrived now."""
        with self._changed:
            self._batcher.add(items, self._monotonic())
            self._changed.notify()

    def get(self, timeout_s: float, meanwhile: Callable[[T], None] | None = None) -> Batch[T] | None:
        """The next batch, waiting at most `timeout_s` for it; None where none came due.

        While it waits, `meanwhile` is called with one waiting item after the other. A batch may be handed to another
        lane before the call with one of its items returns.
        """
        end = self._monotonic() + timeout_s
        while True:
            with self._changed:
                now = self._monotonic()
                items = self._batcher.pop(now, flush=self._closed)
                if items:
                    self._lent = max(0, self._lent - len(items))
                    if len(self._batcher):
                        self._changed.notify()  # one put may have filled several batches, and wakes one lane
                    self._handed += 1
                    return Batch(self._handed - 1, items)
                if self._closed or now >= end:
                    return None
                item = None if meanwhile is None else self._batcher.peek(self._lent)
                if item is None:
                    remaining = self._batcher.remaining_s(now)
                    self._changed.wait(end - now if remaining is None else min(remaining, end - now))
                    continue
                self._lent += 1
            assert meanwhile is not None
            meanwhile(item)

    def shrink(self, max_items: int) -> None:
        """No batch is larger than this from now on."""
        with self._changed:
            self._batcher.max_items = max(1, min(max_items, self._batcher.max_items))

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
