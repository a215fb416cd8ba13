"""Settle: publish what is decided, whole messages, for as long as it takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from gaussline.worker.broker.settle import Settler
from gaussline.worker.engine.conclude import Concluder
from gaussline.worker.engine.copy_outlet import CopyOutlet
from gaussline.worker.engine.credit import Credit
from gaussline.worker.engine.decided import Decided
from gaussline.worker.engine.kept_outlet import KeptOutlet
from gaussline.worker.engine.observer import Observer
from gaussline.worker.engine.open_messages import OpenMessages
from gaussline.worker.engine.outlet import Outlet
from gaussline.worker.engine.prepare import MessageWork
from gaussline.worker.engine.publish import publish
from gaussline.worker.errors import BrokerError, BrokerUnavailable

Image = TypeVar("Image")
IDLE_S = 0.25
"""Longest sleep: how soon it notices that the worker gave up, and tells that it lives."""
SETTLE_MESSAGES = 32
"""Most messages of one settle call; a bound on how long one call holds Redis."""
BACKOFF_S = (0.05, 2.0)


class SettleStage(Generic[Image]):
    """`run` calls `step` until the outlet is finished.

    Args:
        abandon: set when what is not published is to be left to others.
    """

    def __init__(
        self,
        settler: Settler,
        concluder: Concluder,
        outlet: Outlet[Decided[Image]],
        credit: Credit,
        open_messages: OpenMessages,
        *,
        now_us: Callable[[], int],
        observer: Observer,
        abandon: threading.Event,
        kept: KeptOutlet | None = None,
        copies: CopyOutlet | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settler = settler
        self._concluder = concluder
        self._outlet = outlet
        self._credit = credit
        self._open = open_messages
        self._now_us = now_us
        self._observer = observer
        self._abandon = abandon
        self._kept = kept
        self._copies = copies
        self._monotonic = monotonic
        self._told = 0

    def run(self) -> None:
        """Until everything is published, or given up."""
        while not self._outlet.finished and not self._abandon.is_set():
            self.step()

    def step(self) -> int:
        """One turn: publish every message that is decided by now. Messages published."""
        self._observer.turned("settle")
        whole: list[MessageWork[Image]] = []
        for decided in self._outlet.take(IDLE_S, SETTLE_MESSAGES):
            whole.extend(decided.whole)
            for frame, outcome in zip(decided.frames, decided.outcomes, strict=True):
                if frame.work.decide(frame.offset, outcome):
                    whole.append(frame.work)
        own = self._tell_of_copies(whole) if self._copies is not None else whole
        for start in range(0, len(own), SETTLE_MESSAGES):
            self.publish(own[start : start + SETTLE_MESSAGES])
        return len(whole)

    def _tell_of_copies(self, works: list[MessageWork[Image]]) -> list[MessageWork[Image]]:
        """Publish what is said of copies, which are never settled; the works that are no copies."""
        copied = [work for work in works if work.message.copy]
        if not copied:
            return works
        assert self._copies is not None
        self._copies.put(copied)
        self._open.remove(copied)
        self._credit.give_back(size_bytes=sum(work.message.size_bytes for work in copied))
        return [work for work in works if not work.message.copy]

    def publish(self, works: list[MessageWork[Image]]) -> None:
        """Settle messages, for as long as it takes: what is decided is never thrown away while this worker lives."""
        backoff_s = BACKOFF_S[0]
        while True:
            begin = self._monotonic()
            try:
                verdicts, lost = publish(self._settler, self._concluder, works, self._kept)
                break
            except BrokerError as error:
                self._observer.trouble("settle", error)
                if len(works) > 1 and not isinstance(error, BrokerUnavailable):
                    for work in works:  # one message that Redis refuses must not hold up the others
                        self.publish([work])
                    return
                if self._abandon.wait(backoff_s):
                    return
                backoff_s = min(2 * backoff_s, BACKOFF_S[1])
        self._open.remove(works)
        self._credit.give_back(size_bytes=sum(work.message.size_bytes for work in works))
        self._observer.settled(verdicts, self._monotonic() - begin, self._now_us())
        if lost:
            self._observer.lost_race(lost)
        if self._settler.unreplicated > self._told:
            self._observer.unreplicated(self._settler.unreplicated - self._told)
            self._told = self._settler.unreplicated
