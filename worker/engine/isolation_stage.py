"""Isolation: messages over which a worker died are judged alone, frame by frame, in a process of their own.

So only the guilty frame becomes not_judged(poison), and the worker lives. It is a stage beside the others: the frames
of everybody else do not wait for it. The process stands by, for importing torch takes longer than a dead worker's
frames may wait; it loads its backbone when a worker is dead that holds messages, while those may not be claimed yet.
"""

from __future__ import annotations

import queue
import threading
from typing import Any, Final, Protocol

from gaussline.worker.broker.intake import Message
from gaussline.worker.contract.verdict import Reason
from gaussline.worker.engine.decided import Decided
from gaussline.worker.engine.judgement import Judgement
from gaussline.worker.engine.observer import Observer
from gaussline.worker.engine.outlet import Outlet
from gaussline.worker.engine.prepare import Preparer, Refusal
from gaussline.worker.errors import GausslineError

IDLE_S: Final = 0.25
KEEP_S: Final = 10.0
"""An idle process is replaced after this: it holds a backbone of its own, memory that is seldom needed."""
RETRY_S: Final = 1.0


class Isolated(Protocol):
    """What the stage needs of an isolated process."""

    def judge(self, message: Message) -> tuple[list[Judgement | Refusal], bool]:
        """One outcome a frame, and whether the message could be read. Raises GausslineError without a process."""
        ...

    def prepare(self) -> None:
        """Start it, where it is not running; it holds no backbone before it is asked."""
        ...

    def load(self) -> None:
        """Have it load its backbone, started where it is not running. Raises GausslineError without a process."""
        ...

    def close(self) -> None:
        """End it."""
        ...


class IsolationStage:
    """`run` judges what `put` brings, one message after the other.

    Bounded by the intake's credit in bytes; frames that wait here do not count as ahead of the backbone.

    Args:
        standby_after_s: the process is started so long after the worker: at its start the worker needs the cores.
    """

    def __init__(
        self,
        isolated: Isolated,
        preparer: Preparer[Any],
        outlet: Outlet[Decided[Any]],
        *,
        observer: Observer,
        stopping: threading.Event,
        abandon: threading.Event,
        standby_after_s: float = 10.0,
    ) -> None:
        self._isolated = isolated
        self._preparer = preparer
        self._outlet = outlet
        self._observer = observer
        self._stopping = stopping
        self._abandon = abandon
        self._standby_after_s = standby_after_s
        self._waiting: queue.SimpleQueue[Message | None] = queue.SimpleQueue()

    def put(self, message: Message) -> None:
        """A message that a worker died over."""
        self._waiting.put(message)

    def expect(self) -> None:
        """Messages that a worker died over will come soon."""
        self._waiting.put(None)

    def run(self) -> None:
        """Until the worker stops; what is not judged by then is released with all else that is open."""
        idle_s, asked, stands_by = 0.0, False, False
        try:
            while not self._stopping.is_set() and not self._abandon.is_set():
                try:
                    message = self._waiting.get(timeout=IDLE_S)
                except queue.Empty:
                    idle_s += IDLE_S
                    if asked and idle_s >= KEEP_S:
                        self._isolated.close()
                        asked = stands_by = False
                    if not stands_by and idle_s >= self._standby_after_s:
                        stands_by = self._stand_by()
                    continue
                idle_s, asked, stands_by = 0.0, True, True
                if message is None:
                    self._get_ready()
                else:
                    self._judge(message)
        finally:
            self._isolated.close()

    def _stand_by(self) -> bool:
        try:
            self._isolated.prepare()
        except GausslineError as error:
            self._observer.trouble("isolation", error)
            return False
        return True

    def _get_ready(self) -> None:
        try:
            self._isolated.load()
        except GausslineError as error:
            self._observer.trouble("isolation", error)

    def _judge(self, message: Message) -> None:
        while not self._stopping.is_set():
            try:
                outcomes, readable = self._isolated.judge(message)
            except GausslineError as error:
                # Judged here it might kill this worker too, so it waits for a process; another worker may be luckier.
                self._observer.trouble("isolation", error)
                self._stopping.wait(RETRY_S)
                continue
            self._observer.isolated(len(outcomes), sum(_poisonous(outcome) for outcome in outcomes))
            self._outlet.put(Decided(whole=[self._preparer.adopt(message, outcomes, readable=readable)]))
            return


def _poisonous(outcome: Judgement | Refusal) -> bool:
    return isinstance(outcome, Refusal) and outcome.reason is Reason.POISON
