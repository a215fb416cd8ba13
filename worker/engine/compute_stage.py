"""Compute: lanes that take batches from the hand-over, judge them, and hand them on.

A lane is one thread with a batch of its own. On a CPU several lanes of one thread each need no barrier inside a layer,
so that a core which decodes, settles or runs somebody else's program holds up one batch and not all of them; on a GPU
there is one lane. Lanes take batches in the order of the hand-over, and the outlet gives them to settle in that order.

Where a lane is one thread of a CPU it also decodes what it judges, and while it waits for a batch what has arrived of
it: threads that decode beside the lanes would take their cores away in the middle of a layer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from gaussline.worker.contract.verdict import Reason
from gaussline.worker.engine.credit import Credit
from gaussline.worker.engine.decided import Decided
from gaussline.worker.engine.handover import Handover
from gaussline.worker.engine.judgement import Judge
from gaussline.worker.engine.observer import Observer
from gaussline.worker.engine.outlet import Outlet
from gaussline.worker.engine.prepare import PreparedFrame, Preparer, Refusal
from gaussline.worker.errors import DeviceFull

Image = TypeVar("Image")
IDLE_S = 0.25
"""Longest sleep of a lane: how soon it notices that the worker gave up, and tells that it lives."""


class ComputeStage(Generic[Image]):
    """Every lane calls `step` until the hand-over is finished; `run` is one lane's body.

    Args:
        abandon: set when what is undecided is to be left to others.
        preparer: decodes frames that come without an image; None where all of them have one.
    """

    def __init__(
        self,
        judge: Judge[Image],
        handover: Handover[PreparedFrame[Image]],
        outlet: Outlet[Decided[Image]],
        credit: Credit,
        *,
        lanes: int,
        now_us: Callable[[], int],
        observer: Observer,
        abandon: threading.Event,
        preparer: Preparer[Image] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._judge = judge
        self._handover = handover
        self._outlet = outlet
        self._credit = credit
        self._now_us = now_us
        self._observer = observer
        self._abandon = abandon
        self._preparer = preparer
        self._monotonic = monotonic
        self._turns = _Turns(lanes, observer)
        self.warm = self._turns.begun
        """Set once every lane is ready for its first batch."""

    def run(self, lane: int) -> None:
        """One lane, until the hand-over is finished or given up."""
        self._judge.begin_thread(computes=True)
        self._turns.began(lane)
        while not self._handover.finished and not self._abandon.is_set():
            self.step(lane)

    def step(self, lane: int = 0) -> int:
        """One turn of one lane: wait for a batch, judge it, hand it on. Frames judged or refused."""
        self._turns.turned(lane)
        begin = self._monotonic()
        decoding = _Stopwatch()
        meanwhile = None if self._preparer is None else partial(self._decode, decoding)
        batch = self._handover.get(IDLE_S, meanwhile)
        self._observer.waited(self._monotonic() - begin - decoding.seconds)
        if batch is None:
            return 0
        try:
            self._credit.give_back(frames=len(batch.items))
            decided = Decided(batch.items, self.judge(batch.items))
        except BaseException:
            self._outlet.skip(batch.number)  # this lane ends; the batches of the others must not wait for it
            raise
        self._outlet.put(decided, batch.number)
        return len(batch.items)

    def judge(self, batch: list[PreparedFrame[Image]]) -> list[object]:
        """Outcomes in the batch's order.

        Where a batch fails, its frames are judged alone, so that one bad frame does not take the others with it.
        """
        now_us = self._now_us()
        live = [frame for frame in batch if frame.source.deadline_us is None or frame.source.deadline_us > now_us]
        if self._preparer is not None:
            for frame in live:
                self._decode(_Stopwatch(), frame)
            live = [frame for frame in live if frame.refusal is None]
        judged: dict[int, object] = {}
        if live:
            try:
                outcomes, timing = self._judge.judge(
                    [image for frame in live if (image := frame.image) is not None],
                    [frame.work.message.camera for frame in live],
                    [frame.identity for frame in live],
                )
                self._observer.computed(len(live), timing.backbone_seconds, timing.score_seconds)
                self._observer.computed_frames(live, timing.backbone_seconds, timing.score_seconds)
                if len(live) == len(batch):
                    return list(outcomes)
                judged = {id(frame): outcome for frame, outcome in zip(live, outcomes, strict=True)}
            except DeviceFull as error:
                return self._halved(batch, error)
            except Exception as error:  # the loop decides: a fault of compute must cost one frame, not the worker
                self._observer.surprise("compute", error)
                if len(batch) > 1:
                    return [outcome for frame in batch for outcome in self.judge([frame])]
                return [Refusal(Reason.INTERNAL, f"{type(error).__name__}: {str(error)[:200]}", batch[0].source)]
        expired = "its deadline passed while it waited for the backbone"
        return [
            judged[id(frame)]
            if id(frame) in judged
            else frame.refusal or Refusal(Reason.EXPIRED, expired, frame.source)
            for frame in batch
        ]

    def _decode(self, decoding: _Stopwatch, frame: PreparedFrame[Image]) -> None:
        assert self._preparer is not None
        begin = self._monotonic()
        if self._preparer.decode(frame):
            seconds = self._monotonic() - begin
            decoding.seconds += seconds
            self._observer.prepared(1, seconds)
            self._observer.prepared_frames([frame], seconds)

    def _halved(self, batch: list[PreparedFrame[Image]], error: DeviceFull) -> list[object]:
        """The device has no memory for so many frames: from now on batches are half as large, this one first."""
        self._observer.trouble("compute", error)
        if len(batch) == 1:
            return [Refusal(Reason.INTERNAL, f"the device has no memory left for one frame: {error}", batch[0].source)]
        half = len(batch) // 2
        self._handover.shrink(half)
        return [*self.judge(batch[:half]), *self.judge(batch[half:])]


@dataclass(slots=True)
class _Stopwatch:
    seconds: float = 0.0


class _Turns:
    """Tells that compute lives only when every lane has turned since it was told last: one stuck lane is seen."""

    def __init__(self, lanes: int, observer: Observer) -> None:
        self._lanes = lanes
        self._observer = observer
        self._lock = threading.Lock()
        self._seen: set[int] = set()
        self._ready: set[int] = set()
        self.begun = threading.Event()

    def began(self, lane: int) -> None:
        with self._lock:
            self._ready.add(lane)
            if len(self._ready) == self._lanes:
                self.begun.set()

    def turned(self, lane: int) -> None:
        with self._lock:
            self._seen.add(lane)
            if len(self._seen) < self._lanes:
                return
            self._seen.clear()
        self._observer.turned("compute")
