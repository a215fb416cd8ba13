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
        self._works: dict[tuple[str, str, int, int, bool], MessageWork[Any]] = {}

    def add(self, works: Iterable[MessageWork[Any]]) -> None:
        """These were taken."""
        with self._lock:
            for work in works:
                self._works[_key(work.message)] = work

    def holds(self, message: Message) -> bool:
        """Whether this message is in hand."""
        with self._lock:
            return _key(message) in self._works

    def messages(self) -> list[Message]:
        """All of them."""
        with self._lock:
            return [work.message for work in self._works.values()]

    def remove(self, works: Iterable[MessageWork[Any]]) -> None:
        """These are settled."""
        with self._lock:
            for work in works:
                self._works.pop(_key(work.message), None)

    def clear(self) -> list[Message]:
        """Forget all of them; what they were."""
        with self._lock:
            left = [work.message for work in self._works.values()]
            self._works.clear()
        return left


def _key(message: Message) -> tuple[str, str, int, int, bool]:
    """Which message it is: of another server that becomes the master an entry's id may be another message's."""
    return message.camera, message.entry_id, message.epoch, message.first_sequence, message.copy
