"""What becomes of copied frames once they are judged: a result of their set, never a verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from gaussline.worker.broker.copies import SetResults
from gaussline.worker.engine.conclude import Concluder
from gaussline.worker.engine.observer import Observer
from gaussline.worker.engine.prepare import MessageWork
from gaussline.worker.errors import BrokerError


class CopyOutlet:
    """Publishes what this worker's set says of copies.

    A result looks like the verdict that the set would have given; nothing is kept, dead-lettered or learnt from, and
    where Redis does not take it, it is lost like any other copy: the frames that this set settles must not wait for it.
    """

    def __init__(
        self, results: SetResults, concluder: Concluder, observer: Observer, now_us: Callable[[], int]
    ) -> None:
        self._results = results
        self._concluder = concluder
        self._observer = observer
        self._now_us = now_us

    def put(self, works: Sequence[MessageWork[Any]]) -> None:
        """Publish decided copies."""
        now_us = self._now_us()
        verdicts = [
            replace(frame.verdict, kept=False, heat_map=None, judged_us=now_us)
            for work in works
            for frame in self._concluder.conclude(work)
        ]
        try:
            self._results.publish([(each.id, each.camera, each.decision.value, each.to_json()) for each in verdicts])
        except BrokerError as error:
            self._observer.trouble("copies", error)
