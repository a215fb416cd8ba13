"""Kept frames on their way out: what cannot be stored must not hold up a verdict."""

from __future__ import annotations

import time
from collections.abc import Callable

from gaussline.worker.broker.kept_store import KeptStore
from gaussline.worker.engine.observer import Observer
from gaussline.worker.errors import BrokerError

PAUSE_S = 5.0
"""How long a store that failed is left alone: waiting out its time-out for every frame would stall the line."""


class KeptOutlet:
    """Puts frames into a store of its own (a folder, S3), and tells of each whether it is there.

    The line waits for Redis, because Redis is the line; a full disk or a store that is away costs the picture, never
    the verdict, which then says that the frame is not kept.
    """

    def __init__(self, store: KeptStore, observer: Observer, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._observer = observer
        self._monotonic = monotonic
        self._again_s = float("-inf")

    def put(self, frame_id: str, data: bytes) -> bool:
        """Whether the frame is stored."""
        if self._monotonic() < self._again_s:
            return False
        try:
            self._store.put(frame_id, data)
        except BrokerError as error:
            self._observer.trouble("kept", error)
            self._again_s = self._monotonic() + PAUSE_S
            return False
        return True
