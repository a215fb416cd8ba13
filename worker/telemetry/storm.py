"""How often a line of one kind may be written, and how many were left out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

MAX_KINDS = 1000
Kind = TypeVar("Kind", bound=Hashable)


@dataclass(slots=True)
class _Kind:
    since_s: float
    left_out: int = 0


class Storm(Generic[Kind]):
    """Lets one line of a kind through in each period, and counts the others, so that none vanishes without a trace.

    Args:
        period_s: from one line of a kind to the next.
        monotonic: seconds, on any clock that never goes back.
    """

    def __init__(self, period_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._period_s = period_s
        self._monotonic = monotonic
        self._kinds: dict[Kind, _Kind] = {}
        self._lock = threading.Lock()

    def let(self, kind: Kind) -> int | None:
        """None where the line must wait; else how many were left out since the last one of its kind."""
        now_s = self._monotonic()
        with self._lock:
            known = self._kinds.get(kind)
            if known is not None and now_s - known.since_s < self._period_s:
                known.left_out += 1
                return None
            if known is None and len(self._kinds) >= MAX_KINDS:
                # Kinds hold names from inside only, but a bound that is stated needs no such argument.
                del self._kinds[min(self._kinds, key=lambda each: self._kinds[each].since_s)]
            self._kinds[kind] = _Kind(now_s)
            return 0 if known is None else known.left_out

    def ended(self, *, all_of_them: bool = False) -> list[tuple[Kind, int]]:
        """Kinds whose period is over (or all), with the lines left out of each, told once; others are forgotten."""
        now_s = self._monotonic()
        with self._lock:
            over = {
                kind: known
                for kind, known in self._kinds.items()
                if all_of_them or now_s - known.since_s >= self._period_s
            }
            for kind in over:
                del self._kinds[kind]
        return [(kind, known.left_out) for kind, known in over.items() if known.left_out]
