"""What the compute stage says of one frame, and the interface it says it through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from gaussline.worker.contract.frame import Frame
from gaussline.worker.contract.verdict import ModelRef, Opinion
from gaussline.worker.engine.prepare import Refusal

Image = TypeVar("Image")


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """One frame under one model.

    Attributes:
        failed: the frame is outside the model's working point.
        score: combined distance.
        level_scores: Mahalanobis distance a level, by level name.
        heat_map: reference of the frame's heat map, which may come later or never.
        device: what the backbone ran on.
        features: float32 (d,) a level where the frame's features are to be written down, else None.
        statistics: of the picture itself, where its features are to be written down, else None.
        farthest: which region of each level made its distance, where a map may be made of it; stays in this process.
        opinions: what the model's other channels say, while one is on trial.
    """

    model: ModelRef
    failed: bool
    score: float
    threshold: float
    p_value: float
    level_scores: dict[str, float]
    backbone: str
    spec_digest: str
    random_weights: bool = False
    features: tuple[NDArray[np.float32], ...] | None = None
    statistics: dict[str, float] | None = None
    opinions: tuple[Opinion, ...] = ()
    heat_map: str | None = None
    farthest: tuple[int, ...] = ()
    device: str | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds that one batch spent in the backbone and in scoring."""

    backbone_seconds: float
    score_seconds: float


class Judge(Protocol[Image]):
    """Frames in, judgements out. The engine knows nothing else of networks and Gaussians."""

    def begin_thread(self, *, computes: bool) -> None:
        """Called once in every thread that decodes or, where `computes`, judges; before anything else there."""
        ...

    def to_image(self, frame: Frame) -> Image:
        """Decode and resize one frame; called from several threads. Raises ImageError."""
        ...

    def judge(
        self, images: Sequence[Image], cameras: Sequence[str], identities: Sequence[str]
    ) -> tuple[Sequence[Judgement | Refusal], Timing]:
        """Judge one batch: one backbone pass, each frame under its own camera's model.

        `identities` are the frames' ids, by which a canary draws its share. Called from every
        lane.
        """
        ...
