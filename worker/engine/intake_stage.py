"""Intake: take or claim messages as far as the credit goes, prepare their frames, and hand those on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from gaussline.worker.broker.intake import Intake, Message
from gaussline.worker.engine.credit import Credit
from gaussline.worker.engine.decided import Decided
from gaussline.worker.engine.handover import Handover
from gaussline.worker.engine.observer import Observer
from gaussline.worker.engine.open_messages import OpenMessages
from gaussline.worker.engine.outlet import Outlet
from gaussline.worker.engine.prepare import MessageWork, PreparedFrame, Preparer
from gaussline.worker.errors import BrokerError

Image = TypeVar("Image")
IDLE_S = 0.25
"""Longest sleep: how soon it notices a stop, a claim that is due, or a bell that was lost."""
TAKE_BYTES = 2**20
"""Most bytes of one take call of several messages: beyond it the reply outgrows caches, and others wait for Redis."""
BACKOFF_S = (0.05, 2.0)
CLAIM_LEAST_S = 0.05
"""Least time between two claims, however soon something may be claimed."""


class IntakeStage(Generic[Image]):
    """`run` calls `step` until the worker stops.

    Args:
        decode_threads: messages that were taken together are prepared by so many threads, and handed on in their
            order; 0 leaves decoding to the lanes.
        begin_thread: called once in each of these threads.
        isolate: takes the messages over which a worker died; None judges them like all others.
        expect: told that such messages will come soon.
        warm: nothing is taken before this is set: others may have it sooner.
        claim_every_s: period of looking for dead workers' messages, and of reconciling with the streams.
    """

    def __init__(
        self,
        intake: Intake,
        preparer: Preparer[Image],
        handover: Handover[PreparedFrame[Image]],
        outlet: Outlet[Decided[Image]],
        credit: Credit,
        open_messages: OpenMessages,
        *,
        decode_threads: int,
        begin_thread: Callable[[], None],
        claim_every_s: float,
        observer: Observer,
        stopping: threading.Event,
        isolate: Callable[[Message], None] | None = None,
        expect: Callable[[], None] | None = None,
        warm: threading.Event | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._intake = intake
        self._preparer = preparer
        self._handover = handover
        self._outlet = outlet
        self._credit = credit
        self._open = open_messages
        self._decode_threads = decode_threads
        self._begin_thread = begin_thread
        self._claim_every_s = claim_every_s
        self._observer = observer
        self._stopping = stopping
        self._isolate = isolate
        self._expect = expect
        self._warm = warm
        self._monotonic = monotonic
        self._next_claim_s = 0.0
        self._pool: ThreadPoolExecutor | None = None
        if decode_threads > 1:
            self._pool = ThreadPoolExecutor(decode_threads, "decode", initializer=begin_thread)

    def run(self) -> None:
        """Until the worker stops."""
        self._begin_thread()
        while self._warm is not None and not self._stopping.is_set() and not self._warm.wait(IDLE_S):
            self._observer.turned("intake")
        backoff_s = BACKOFF_S[0]
        while not self._stopping.is_set():
            try:
                self.step()
                backoff_s = BACKOFF_S[0]
            except BrokerError as error:
                self._observer.trouble("intake", error)
                self._next_claim_s = self._monotonic()
                self._stopping.wait(backoff_s)
                backoff_s = min(2 * backoff_s, BACKOFF_S[1])

    def close(self) -> None:
        """Let the decoding threads end."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def step(self) -> int:
        """One turn: claim where it is due, take what the credit allows, prepare it. Frames taken."""
        self._observer.turned("intake")
        messages: list[Message] = []
        max_frames, max_bytes = self._credit.available(IDLE_S)
        if self._monotonic() >= self._next_claim_s:
            self._intake.reconcile()
            # What a call took whose answer was lost would lie with us, whom all see alive, until we count as slow.
            self._intake.recall(self._open.messages())
            pause_s = self._claim_every_s
            if max_frames:
                messages = self._intake.claim(max_frames=max_frames, max_bytes=max_bytes)
                self._count_claims(messages)
                pause_s = self._until_claim_s()
            self._next_claim_s = self._monotonic() + pause_s
        if max_frames and not messages:
            begin = self._monotonic()
            messages = self._intake.take(max_frames=max_frames, max_bytes=min(max_bytes, TAKE_BYTES))
            if not messages:
                self._intake.wait(IDLE_S)
                return 0
            self._observer.taken(
                sum(message.frame_count for message in messages),
                sum(message.size_bytes for message in messages),
                self._monotonic() - begin,
            )
        self.accept(messages)
        return sum(message.frame_count for message in messages)

    def accept(self, messages: Sequence[Message]) -> None:
        """Pay for messages, prepare their frames and hand them on.

        One that is in hand already comes again where it has been there for long, as in an outage or while no isolated
        process starts, or where its group was made anew. It is its worker's then, and is worked on: once.
        """
        messages = [message for message in messages if not self._open.holds(message)]
        if not messages:
            return
        frame_count = sum(message.frame_count for message in messages)
        self._credit.spend(frame_count, sum(message.size_bytes for message in messages))
        begin = self._monotonic()
        prepared = self._prepare([message for message in messages if not self._set_apart(message)])
        self._open.add(work for work, _ in prepared)
        ready = [frame for _, frames in prepared for frame in frames]
        if self._decode_threads:
            seconds = self._monotonic() - begin
            self._observer.prepared(frame_count, seconds)
            self._observer.prepared_frames(ready, seconds)
        if len(ready) < frame_count:
            self._credit.give_back(frames=frame_count - len(ready))
        whole = [work for work, _ in prepared if work.open == 0]
        if whole:
            self._outlet.put(Decided(whole=whole))
        if ready:
            self._handover.put(ready)

    def _until_claim_s(self) -> float:
        """Until the next claim: to the moment, where a dead worker's messages may be claimed before its turn."""
        due_s = self._intake.dead_due_s
        if due_s is None:
            return self._claim_every_s
        if self._expect is not None:
            self._expect()
        return min(self._claim_every_s, max(due_s, CLAIM_LEAST_S))

    def _set_apart(self, message: Message) -> bool:
        """Whether a message is judged in isolation: a worker died over it, and it is not given up yet."""
        if self._isolate is None or not message.crashes or self._preparer.refuse_whole(message) is not None:
            return False
        self._open.add([MessageWork(message, [None] * message.frame_count, message.frame_count)])
        self._isolate(message)
        return True

    def _prepare(self, messages: Sequence[Message]) -> list[tuple[MessageWork[Image], list[PreparedFrame[Image]]]]:
        if self._pool is None or len(messages) <= 1:
            return self._prepare_all(messages)
        share = -(-len(messages) // self._decode_threads)
        chunks = [messages[start : start + share] for start in range(0, len(messages), share)]
        return [item for chunk in self._pool.map(self._prepare_all, chunks) for item in chunk]

    def _prepare_all(self, messages: Sequence[Message]) -> list[tuple[MessageWork[Image], list[PreparedFrame[Image]]]]:
        return [self._preparer.prepare(message, decode=self._decode_threads > 0) for message in messages]

    def _count_claims(self, messages: Sequence[Message]) -> None:
        for camera in {message.camera for message in messages}:
            own = [message for message in messages if message.camera == camera]
            self._observer.redelivered(camera, len(own), sum(message.crashes > 0 for message in own))
