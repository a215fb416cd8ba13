"""Collects frames into batches: full ones at once, others when the first frame has waited long enough."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Batcher(Generic[T]):
    """Pure: the clock is an argument.

    A batch's deadline is fixed by its *first* item: the moment that item arrived plus `wait_s`. Later items do not move
    it, so no item ever waits longer than `wait_s` for company.
    """

    def __init__(self, max_items: int, wait_s: float) -> None:
        if max_items < 1 or wait_s < 0:
            raise ValueError(f"max_items {max_items} must be at least 1 and wait_s {wait_s} at least 0")
        self.max_items = max_items
        self.wait_s = wait_s
        self._items: deque[tuple[T, float]] = deque()

    def __len__(self) -> int:
        return len(self._items)

    def peek(self, place: int) -> T | None:
        """The item at this place of the queue, from 0; None where there is none."""
        return self._items[place][0] if place < len(self._items) else None

    def add(self, items: Iterable[T], now_s: float) -> None:
        """Append items that arrived at `now_s` (seconds, monotonic)."""
        self._items.extend((item, now_s) for item in items)

    def remaining_s(self, now_s: float) -> float | None:
        """Seconds until a batch is due, 0 where one is; None where nothing waits."""
        if not self._items:
            return None
        if len(self._items) >= self.max_items:
            return 0.0
        return max(0.0, self._items[0][1] + self.wait_s - now_s)

    def pop(self, now_s: float, *, flush: bool = False) -> list[T]:
        """The next batch where one is due (or where `flush` asks for what there is), else an empty list."""
        remaining = self.remaining_s(now_s)
        if remaining is None or (remaining > 0 and not flush):
            return []
        return [self._items.popleft()[0] for _ in range(min(self.max_items, len(self._items)))]
