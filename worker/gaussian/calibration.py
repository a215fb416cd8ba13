"""The working point: from a stated false-positive rate to a decision, by normal frames that the fit has not seen.

A frame fails when its p-value is at most the rate. With the conformal p-value (Vovk, Gammerman, Shafer, "Algorithmic
Learning in a Random World", 2005), p = (1 + #{sᵢ ≥ s}) / (n + 1), a normal frame that is exchangeable with the
calibration frames fails with probability at most the rate, whatever the distribution and however few the frames. The
rate must be at least 1 / (n + 1): below it no frame could ever fail, and the calibration is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from gaussline.worker.errors import FitError

Array = NDArray[np.float64]


class Method(StrEnum):
    """How the working point comes about."""

    CONFORMAL = "conformal"
    EMPIRICAL = "empirical"


@dataclass(frozen=True, slots=True, eq=False)
class WorkingPoint:
    """A decision rule at a stated rate.

    Attributes:
        rate: the stated false-positive rate.
        threshold: a frame fails if and only if its score is over it. For `conformal` that is: if and only if its
            p-value is at most the rate, to the bit; `empirical` cuts without the correction for n.
        scores: (n,) calibration scores, ascending, of normal frames unseen by the fit.
    """

    method: Method
    rate: float
    threshold: float
    scores: Array

    def p_value(self, scores: ArrayLike) -> Array:
        """(m,) scores to (m,) conformal p-values in [1/(n+1), 1]. Ties count against the frame's strangeness."""
        above = self.scores.size - np.searchsorted(self.scores, np.asarray(scores, np.float64), side="left")
        return np.asarray((above + 1.0) / (self.scores.size + 1.0), np.float64)

    def fails(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """(m,) scores to (m,) decisions. A score that is no number is not normal: it fails."""
        decisions: NDArray[np.bool_] = ~(np.asarray(scores, np.float64) <= self.threshold)
        return decisions

    def to_json(self) -> dict[str, Any]:
        """All but the scores, JSON-able."""
        return {"method": self.method.value, "rate": self.rate, "threshold": self.threshold}

    @classmethod
    def restore(cls, fields: dict[str, Any], scores: Array) -> WorkingPoint:
        """From `to_json` and the scores. Raises FitError where they are missing or make no sense."""
        ordered = np.asarray(scores, np.float64)
        if ordered.ndim != 1 or ordered.size == 0 or not np.isfinite(ordered).all() or (np.diff(ordered) < 0).any():
            raise FitError("stored calibration scores are missing, not finite or out of order")
        try:
            point = cls(Method(fields["method"]), float(fields["rate"]), float(fields["threshold"]), ordered)
        except (KeyError, ValueError, TypeError) as error:
            raise FitError(f"a stored working point is none: {type(error).__name__}: {error}") from None
        if not (0.0 < point.rate < 1.0 and math.isfinite(point.threshold)):
            raise FitError(f"a stored working point has rate {point.rate} and threshold {point.threshold}")
        return point


def frames_needed(rate: float) -> int:
    """Fewest calibration frames n with which a rate is attainable: 1/(n+1) <= rate. Raises FitError."""
    if not 0.0 < rate < 1.0:
        raise FitError(f"false-positive rate {rate} is not between 0 and 1")
    n = max(1, round(1.0 / rate) - 2)
    # Rounding decides as it does for a p-value: what is asked is whether 1/(n+1), as a number, is at most the rate.
    while 1.0 / (n + 1.0) > rate:
        n += 1
    return n


def attainable_rate(frames: int) -> float:
    """The least rate that so many calibration frames can hold, 1/(n+1), rounded up to three digits for people."""
    exact = 1.0 / (frames + 1.0)
    digits = 10.0 ** (2 - math.floor(math.log10(exact)))
    return math.ceil(exact * digits - 1e-9) / digits


def calibrate(scores: ArrayLike, rate: float, method: Method = Method.CONFORMAL) -> WorkingPoint:
    """A working point from (n,) scores of normal frames that the fit has not seen.

    `conformal` puts the threshold at the score at which the p-value passes the rate; `empirical` at the (1 - rate)
    order statistic without the correction for n.

    Raises FitError, with the number needed, where n is too small for the rate.
    """
    needed = frames_needed(rate)
    ordered = np.asarray(scores, np.float64)
    if ordered.ndim != 1 or not np.isfinite(ordered).all():
        raise FitError("calibration scores are not finite numbers, one a frame")
    ordered = np.sort(ordered)
    n = ordered.size
    if n == 0:
        raise FitError(f"no calibration frames: a false-positive rate of {rate:.4g} needs at least {needed}")
    if n < needed:
        raise FitError(
            f"{n} calibration frames cannot hold a false-positive rate of {rate:.4g}: at least {needed} are needed "
            f"(or state a rate of at least {attainable_rate(n):.3g})"
        )
    if method is Method.CONFORMAL:
        # A frame fails iff its p-value, one of the n + 1 steps, is at most the rate: iff at most reached - 1 of the
        # calibration scores reach its own.
        steps = (np.arange(n) + 1.0) / (n + 1.0)
        reached = int(np.searchsorted(steps, rate, side="right"))
        threshold = float(ordered[n - reached])
    else:
        threshold = float(ordered[min(n - 1, math.ceil((1.0 - rate) * n - 1e-9) - 1)])
    return WorkingPoint(method, rate, threshold, ordered)


def clopper_pearson(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact binomial interval of a rate (Clopper, Pearson 1934). Without trials: all of 0 … 1. Raises FitError."""
    if not (0 <= hits <= max(trials, 0) and 0.0 < confidence < 1.0):
        raise FitError(f"{hits} of {trials} at a confidence of {confidence} is no share")
    if trials == 0:
        return 0.0, 1.0
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if hits == 0 else float(stats.beta.ppf(tail, hits, trials - hits + 1))
    high = 1.0 if hits == trials else float(stats.beta.ppf(1.0 - tail, hits + 1, trials - hits))
    return low, high
