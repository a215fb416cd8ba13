"""Collects frames into batches: full ones at once, others when the first frame has waited long enough.

Waiting is for company. Where frames come so seldom that none is to be expected within the wait, each goes at once: it
would only get older.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, Generic, TypeVar

T = TypeVar("T")
MEMORY: Final = 16
"""Arrivals over which the mean gap between items is taken."""
SELDOM: Final = 2.0
"""In waits: with a longer mean gap than this the next item most likely comes too late (at random ones, with 61 %)."""
LONGEST_GAP: Final = 4 * SELDOM
"""In waits. A longer gap counts as this one, so that a line that stood still for hours is known as busy soon again."""


class Batcher(Generic[T]):
    """Pure: the clock is an argument.

    A batch's deadline is fixed by its *first* item: the moment that item arrived plus `wait_s`. Later items do not move
    it, so no item ever waits longer than `wait_s` for company, and none waits while items come `SELDOM` as far apart
    or further.
    """

    def __init__(self, max_items: int, wait_s: float) -> None:
        if max_items < 1 or wait_s < 0:
            raise ValueError(f"max_items {max_items} must be at least 1 and wait_s {wait_s} at least 0")
        self.max_items = max_items
        self.wait_s = wait_s
        self._items: deque[tuple[T, float]] = deque()
        """Each item, and when it is due at the latest."""
        self._gap_s, self._company = 0.0, 1.0
        """Means of the time between two arrivals, and of the items of one; company is expected until it stays away."""
        self._last_s: float | None = None

    def __len__(self) -> int:
        return len(self._items)

    def peek(self, place: int) -> T | None:
        """The item at this place of the queue, from 0; None where there is none."""
        return self._items[place][0] if place < len(self._items) else None

    def add(self, items: Iterable[T], now_s: float) -> None:
        """Append items that arrived at `now_s` (seconds, monotonic)."""
        added = list(items)
        if not added:
            return
        if self._last_s is not None:
            # Two means, not the mean of their quotient: that would take a burst for one seldom item.
            self._gap_s += (min(now_s - self._last_s, LONGEST_GAP * self.wait_s) - self._gap_s) / MEMORY
            self._company += (len(added) - self._company) / MEMORY
        self._last_s = now_s
        seldom = self._gap_s > SELDOM * self.wait_s * self._company
        due_s = now_s if seldom else now_s + self.wait_s
        self._items.extend((item, due_s) for item in added)

    def remaining_s(self, now_s: float) -> float | None:
        """Seconds until a batch is due, 0 where one is; None where nothing waits."""
        if not self._items:
            return None
        if len(self._items) >= self.max_items:
            return 0.0
        return max(0.0, self._items[0][1] - now_s)

    def pop(self, now_s: float, *, flush: bool = False) -> list[T]:
        """The next batch where one is due (or where `flush` asks for what there is), else an empty list."""
        remaining = self.remaining_s(now_s)
        if remaining is None or (remaining > 0 and not flush):
            return []
        return [self._items.popleft()[0] for _ in range(min(self.max_items, len(self._items)))]
