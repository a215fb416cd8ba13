"""The messages in this worker's hands: taken, and not yet settled."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from gaussline.worker.broker.intake import Message
from gaussline.worker.engine.prepare import MessageWork


class OpenMessages:
    """A set behind a lock, so that what is left at the end of a drain can be released to other workers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._works: dict[tuple[str, str], MessageWork[Any]] = {}

    def add(self, works: Iterable[MessageWork[Any]]) -> None:
        """These were taken."""
        with self._lock:
            for work in works:
                self._works[work.message.camera, work.message.entry_id] = work

    def remove(self, works: Iterable[MessageWork[Any]]) -> None:
        """These are settled."""
        with self._lock:
            for work in works:
                self._works.pop((work.message.camera, work.message.entry_id), None)

    def clear(self) -> list[Message]:
        """Forget all of them; what they were."""
        with self._lock:
            left = [work.message for work in self._works.values()]
            self._works.clear()
        return left
