"""Cross-conformal p-values: every normal frame both fits and calibrates, at the price of a weaker guarantee.

Vovk, "Cross-conformal predictors" (2015). The frames are cut into K folds; fold k is scored by a fit on the others, and
a new frame is scored by all K fits: p = (1 + Σₖ #{i in fold k: sᵢ >= sₖ}) / (n + 1), where sₖ is the new frame's score
by the fit that has not seen fold k. Every fold alone gives a valid p-value pₖ; p is an average of them in disguise,
p = (Σₖ (nₖ+1)·pₖ - (K-1)) / (n+1), and an average of valid p-values may be half as large as a valid one (Rüschendorf
1982; Vovk, Wang 2020). So P(p <= ε) <= 2·(ε(n+1) + K - 1)/(n + K): about twice the stated rate, where split-conformal
holds the rate itself. In practice the realised rate is near the stated one; that is no guarantee.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.frames import frames_needed

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class CrossConformal:
    """A decision rule over the scores of K fits.

    Attributes:
        rate: the stated rate, which this rule does not guarantee: see `guaranteed_rate`.
        folds: K arrays of scores, ascending, each of the frames that its fit has not seen.
    """

    rate: float
    folds: tuple[Array, ...]

    @property
    def frames(self) -> int:
        """n, over all folds."""
        return sum(fold.size for fold in self.folds)

    @property
    def guaranteed_rate(self) -> float:
        """What is proven of the false-positive rate: 2·(ε(n+1) + K - 1)/(n + K), at most 1."""
        n, k = self.frames, len(self.folds)
        return min(1.0, 2.0 * (self.rate * (n + 1.0) + k - 1.0) / (n + k))

    def p_value(self, scores: ArrayLike) -> Array:
        """(m, K) scores of new frames, a column a fit, to (m,) p-values in [1/(n+1), 1]. Raises FitError."""
        s = np.asarray(scores, np.float64)
        if s.ndim != 2 or s.shape[1] != len(self.folds):
            raise FitError(f"scores have shape {s.shape}, not (frames, {len(self.folds)}): one column a fold's fit")
        above = np.zeros(len(s))
        for fold, column in zip(self.folds, s.T, strict=True):
            above += fold.size - np.searchsorted(fold, column, side="left")
        return np.asarray((above + 1.0) / (self.frames + 1.0), np.float64)

    def fails(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """(m, K) scores to (m,) decisions: a frame fails if and only if its p-value is at most the rate."""
        decisions: NDArray[np.bool_] = self.p_value(scores) <= self.rate
        return decisions


def cross_calibrate(folds: Sequence[ArrayLike], rate: float) -> CrossConformal:
    """From K >= 2 arrays of scores of normal frames, each scored by the fit that has not seen them. Raises FitError."""
    ordered = []
    for fold in folds:
        scores = np.asarray(fold, np.float64)
        if scores.ndim != 1 or not scores.size or not np.isfinite(scores).all():
            raise FitError("a fold's scores are missing or not finite numbers, one a frame")
        ordered.append(np.sort(scores))
    if len(ordered) < 2:
        raise FitError(f"cross-conformal needs at least 2 folds, got {len(ordered)}: use conformal")
    rule = CrossConformal(rate, tuple(ordered))
    needed = frames_needed(rate)
    if rule.frames < needed:
        raise FitError(
            f"{rule.frames} frames cannot hold a false-positive rate of {rate:.4g}: at least {needed} are needed"
        )
    return rule
