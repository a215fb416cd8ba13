"""The gate: which frames may teach, and how much one of them may weigh.

A frame teaches if it did not fail and its conformal p-value is over a level: by the law of p-values that lets all but a
share `gate_p` of normal frames through (or the stated rate, where that is more), and cuts what lies farther out. So the
influence of every frame is bounded by a hard edge: it never lies farther out than the farthest frame that passed the
gate. Frames that a person lets through lie beyond that edge, and get the weight at which they pull the covariance no
more than a frame on it, w = (edge / score)², Huber's weight for a scatter (Huber 1964; Maronna 1976). The weights are
known to the moments, so that Ledoit–Wolf stays exact for the weighted sample. What the edge cuts away,
`gaussian.truncation` gives back.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from gaussline.worker.contract.feature_event import FeatureEvent
from gaussline.worker.contract.verdict import Decision

MAX_EDGES = 16
"""Versions whose edges are remembered."""


class Bar(IntEnum):
    """Why a frame does not teach; `NONE`: it may."""

    NONE = 0
    GATE = 1
    RESERVOIR = 2
    DUPLICATE = 3
    PROBATION = 4


class Gate:
    """Remembers, for each version that judged, the score of the farthest frame that passed.

    Args:
        level: frames teach only if their p-value is over it.
        max_weight: most frames that one event may stand for.
    """

    def __init__(self, level: float, max_weight: float) -> None:
        self.level = level
        self.max_weight = max_weight
        self.edges: dict[str, float] = {}

    def bar(self, event: FeatureEvent) -> Bar:
        """What keeps a frame from teaching by itself."""
        if event.reservoir:
            return Bar.RESERVOIR
        if not event.p_value > self.level or event.decision is Decision.FAIL:
            return Bar.GATE
        edge = self.edges.get(event.digest)
        if edge is None and len(self.edges) >= MAX_EDGES:
            del self.edges[next(iter(self.edges))]
        if edge is None or event.score > edge:
            self.edges[event.digest] = event.score
        return Bar.NONE

    def weights(self, events: Sequence[FeatureEvent], overridden: NDArray[np.bool_]) -> NDArray[np.float64]:
        """(n,) weights of frames that teach. Of an overridden one whose version's edge is not known yet: 0."""
        weights = np.minimum(np.array([event.weight for event in events], np.float64), self.max_weight)
        for row in np.flatnonzero(overridden).tolist():
            event = events[row]
            edge = self.edges.get(event.digest, 0.0)
            if event.score > edge:
                weights[row] *= (edge / event.score) ** 2
        return weights
