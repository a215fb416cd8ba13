"""A worker of several lanes around a judge that a test holds in its hands."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from gaussline.worker.broker.client import connect, time_us
from gaussline.worker.broker.intake import Intake
from gaussline.worker.broker.settle import Settler
from gaussline.worker.contract.frame import Frame
from gaussline.worker.contract.limits import MessageLimits
from gaussline.worker.contract.verdict import ModelRef
from gaussline.worker.engine.clock import RedisClock
from gaussline.worker.engine.judgement import Judgement, Timing
from gaussline.worker.engine.observer import Observer
from gaussline.worker.engine.prepare import Refusal
from gaussline.worker.engine.worker import Worker, WorkerConfig

MODEL = ModelRef("scripted", 1, "0" * 64)


def judgement(score: float) -> Judgement:
    """A frame that passed."""
    return Judgement(MODEL, False, score, 1000.0, 0.5, {"one": score}, backbone="none", spec_digest="0" * 64)


class ScriptedJudge:
    """An image is the number of its frame, in the order of decoding; `before` sees every batch before it is judged.

    `decoding` is told of every image before it is there, in the thread that decodes it.
    """

    def __init__(
        self,
        before: Callable[[Sequence[int]], None] = lambda batch: None,
        decoding: Callable[[int], None] = lambda number: None,
    ) -> None:
        self.before = before
        self.decoding = decoding
        self.threads: dict[bool, set[str]] = {True: set(), False: set()}
        self._lock = threading.Lock()
        self._seen = 0

    def begin_thread(self, *, computes: bool) -> None:
        """Remember the thread."""
        self.threads[computes].add(threading.current_thread().name)

    def to_image(self, frame: Frame) -> int:
        """Number the frames."""
        with self._lock:
            self._seen += 1
            number = self._seen - 1
        self.decoding(number)
        return number

    def judge(
        self, images: Sequence[int], cameras: Sequence[str], identities: Sequence[str]
    ) -> tuple[Sequence[Judgement | Refusal], Timing]:
        """Judge one batch."""
        self.before(images)
        return [judgement(float(image)) for image in images], Timing(0.0, 0.0)


def make_worker(
    url: str,
    line: str,
    judge: ScriptedJudge,
    *,
    lanes: int,
    name: str = "w1",
    batch: int = 4,
    drain_s: float = 20.0,
    decode_threads: int = 1,
    batch_wait_s: float = 0.005,
    observer: Observer | None = None,
) -> Worker[int]:
    """A worker on `line`. Frames are decoded in one thread, so that their numbers are the order they were taken in."""
    clock = connect(url)
    return Worker(
        Intake(connect(url), line, name, claim_after_s=0.2),
        Settler(connect(url), line),
        judge,
        WorkerConfig(
            line, name, batch, batch_wait_s, 2**26, decode_threads, 0.2, drain_s, 0.0, MessageLimits(), lanes=lanes
        ),
        now_us=RedisClock(lambda: time_us(clock)),
        observer=observer,
    )
