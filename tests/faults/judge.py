"""The harness's judge: no network; it passes or fails a frame by what is written in it, and dies of poison."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gaussline.worker.contract.frame import Frame
from gaussline.worker.contract.limits import ImageLimits
from gaussline.worker.contract.verdict import ModelRef
from gaussline.worker.engine.judgement import Judgement, Timing
from gaussline.worker.engine.prepare import Refusal
from gaussline.worker.vision.decode import decode
from gaussline.worker.vision.decode_pool import DecodePool
from tests.faults.frames import HEAD, Kind, read

MODEL = ModelRef("null", 1, "0" * 64)
LIMITS = ImageLimits()


class HarnessJudge:
    """The engine's `Judge`; the score of a frame is its token.

    Args:
        pool: what decodes image files, as the product does; what comes out counts as a good frame without a token.
        slow_batches: numbers of the batches that take `slow_s`, counted from 0; the others take `batch_s`.
    """

    def __init__(
        self, slow_batches: Sequence[int], slow_s: float, batch_s: float, pool: DecodePool | None = None
    ) -> None:
        self._pool = pool
        self._slow = set(slow_batches)
        self._slow_s = slow_s
        self._batch_s = batch_s
        self._batches = 0
        self.frames = 0
        self._pause = threading.Event()

    def begin_thread(self, *, computes: bool) -> None:
        """Nothing here computes in threads of its own."""

    def to_image(self, frame: Frame) -> NDArray[np.uint8]:
        """The first bytes of a raw frame; anything else goes through the product's decoder."""
        if self._pool is not None:
            if frame.encoding == "raw":
                decode(frame.data, frame.encoding, LIMITS, shape=frame.shape, dtype=frame.dtype)
            else:
                with self._pool.decoded(frame.data, frame.encoding):
                    pass
            return np.zeros(HEAD, np.uint8)
        if frame.encoding != "raw":
            return decode(frame.data, frame.encoding, LIMITS)[0, :HEAD, 0]
        if read(frame.data)[1] is Kind.POISON:
            os.kill(os.getpid(), signal.SIGSEGV)
        return np.frombuffer(frame.data, np.uint8, HEAD)

    def judge(
        self, images: Sequence[NDArray[np.uint8]], cameras: Sequence[str], identities: Sequence[str]
    ) -> tuple[Sequence[Judgement | Refusal], Timing]:
        """One judgement a frame."""
        wait_s = self._slow_s if self._batches in self._slow else self._batch_s
        if wait_s:
            self._pause.wait(wait_s)
        self._batches += 1
        self.frames += len(images)
        outcomes = []
        for image in images:
            token, kind = read(image.tobytes())
            outcomes.append(
                Judgement(
                    MODEL, kind is Kind.DEFECT, float(token), 1e9, 0.5, {"null": 1.0}, backbone="null", spec_digest="0"
                )
            )
        return outcomes, Timing(0.0, 0.0)
