"""A judge without a network: what is left is the pipeline's own cost."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gaussline.worker.contract.frame import Frame
from gaussline.worker.contract.verdict import ModelRef
from gaussline.worker.engine.judgement import Judgement, Timing
from gaussline.worker.engine.prepare import Refusal

MODEL = ModelRef("null", 1, "0" * 64)
LEVELS = ("null",)


class NullJudge:
    """Passes every frame with the value of its middle pixel as the score. Raw uint8 arrays only."""

    def begin_thread(self, *, computes: bool) -> None:
        """Nothing here computes in threads of its own."""

    def to_image(self, frame: Frame) -> NDArray[np.uint8]:
        """A view of the frame's bytes: nothing is copied or decoded."""
        assert frame.shape is not None
        return np.frombuffer(frame.data, np.uint8).reshape(frame.shape)

    def judge(
        self, images: Sequence[NDArray[np.uint8]], cameras: Sequence[str], identities: Sequence[str]
    ) -> tuple[Sequence[Judgement | Refusal], Timing]:
        """One judgement a frame."""
        begin = time.perf_counter()
        judged = []
        for image in images:
            score = float(image[image.shape[0] // 2, image.shape[1] // 2])
            judged.append(
                Judgement(MODEL, False, score, 1000.0, 0.5, {"null": score}, backbone="null", spec_digest="0" * 64)
            )
        return judged, Timing(0.0, time.perf_counter() - begin)
