"""How much a worker may hold: a bound on frames ahead of the backbone and on bytes not yet settled."""

from __future__ import annotations

import threading


class Credit:
    """Two counters behind one lock. Intake spends, compute gives frames back, settle gives bytes back.

    Intake waits until it may take `least_frames`: each read of Redis costs the same, few frames or many. A message over
    the whole byte bound is still taken when nothing else is held, so that it cannot stick for ever.
    """

    def __init__(self, max_frames: int, max_bytes: int, least_frames: int = 1) -> None:
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._least_frames = least_frames
        self._frames = 0
        self._bytes = 0
        self._changed = threading.Condition()

    @property
    def held_bytes(self) -> int:
        """Bytes taken and not yet settled."""
        with self._changed:
            return self._bytes

    def available(self, timeout_s: float) -> tuple[int, int]:
        """Wait until something may be taken; (frames, bytes), both 0 where the time ran out first."""
        with self._changed:
            self._changed.wait_for(self._open, timeout_s)
            if not self._open():
                return 0, 0
            return self._max_frames - self._frames, self._max_bytes - self._bytes

    def _open(self) -> bool:
        return self._max_frames - self._frames >= self._least_frames and self._bytes < self._max_bytes

    def spend(self, frames: int, size_bytes: int) -> None:
        """Frames and bytes were taken."""
        with self._changed:
            self._frames += frames
            self._bytes += size_bytes

    def give_back(self, frames: int = 0, size_bytes: int = 0) -> None:
        """Frames reached the backbone, or bytes were settled."""
        with self._changed:
            self._frames -= frames
            self._bytes -= size_bytes
            self._changed.notify_all()
