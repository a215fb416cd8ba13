"""Two versions on the same frames: how much they differ, with intervals.

Every frame of a trial is judged by both versions, so that the comparison is paired: what the frames are like cancels
out, and only the frames on which the two disagree tell anything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.calibration import clopper_pearson


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PairedCounts:
    """Frames by the decisions of both versions.

    Attributes:
        both_pass, both_fail: the two agree.
        only_new, only_old: failed by the new, or by the old version alone.
    """

    both_pass: int = 0
    both_fail: int = 0
    only_new: int = 0
    only_old: int = 0

    @property
    def frames(self) -> int:
        """All frames."""
        return self.both_pass + self.both_fail + self.only_new + self.only_old

    def plus(self, old_failed: bool, new_failed: bool) -> PairedCounts:
        """With one more frame."""
        return PairedCounts(
            self.both_pass + (not old_failed and not new_failed),
            self.both_fail + (old_failed and new_failed),
            self.only_new + (new_failed and not old_failed),
            self.only_old + (old_failed and not new_failed),
        )


def share(hits: int, frames: int, confidence: float) -> Estimate:
    """A share with its exact interval (Clopper, Pearson 1934); 0 … 1 where there are no frames."""
    low, high = clopper_pearson(hits, frames, confidence)
    return Estimate(hits / frames if frames else 0.0, low, high)


def change_of_share(counts: PairedCounts, confidence: float) -> Estimate:
    """Failed share of the new version minus that of the old one.

    The interval is the difference of two exact ones, of the shares that only the new and only the old version fails,
    each at half the error (Bonferroni). Wald's interval, with half a frame added to each cell, is narrower and misses
    its level where one of the two never happens (87 % instead of 95 % for 2 in 100).
    """
    _check(confidence)
    n = counts.frames
    if n == 0:
        return Estimate(0.0, -1.0, 1.0)
    each = (1.0 + confidence) / 2.0
    new, old = share(counts.only_new, n, each), share(counts.only_old, n, each)
    return Estimate(new.value - old.value, new.low - old.high, new.high - old.low)


def ratio_of_shares(counts: PairedCounts, confidence: float) -> Estimate:
    """Failed share of the new version over that of the old one.

    On the log scale, with the variance of matched pairs, (b + c) / ((a + b)(a + c)) (Nam, Blackwelder 2002), and half a
    frame added to each failing cell.
    """
    _check(confidence)
    if counts.both_fail + counts.only_new + counts.only_old == 0:
        return Estimate(1.0, 0.0, math.inf)
    a, b, c = counts.both_fail + 0.5, counts.only_new + 0.5, counts.only_old + 0.5
    centre = math.log((a + b) / (a + c))
    reach = _z(confidence) * math.sqrt((b + c) / ((a + b) * (a + c)))
    old = counts.both_fail + counts.only_old
    value = (counts.both_fail + counts.only_new) / old if old else math.inf
    return Estimate(value, math.exp(centre - reach), math.exp(centre + reach))


def largest_gap(old: ArrayLike, new: ArrayLike, confidence: float) -> Estimate:
    """Largest distance of two distribution functions, from counts (k,) over the same bins.

    The band is that of Dvoretzky, Kiefer and Wolfowitz with Massart's constant (1990), for each of the two; it holds
    for paired samples as well, because it does not ask that the two be independent.
    """
    _check(confidence)
    one, two = np.asarray(old, np.float64), np.asarray(new, np.float64)
    if one.shape != two.shape or one.ndim != 1:
        raise FitError(f"histograms of shapes {one.shape} and {two.shape} cannot be compared")
    if one.sum() == 0 or two.sum() == 0:
        return Estimate(0.0, 0.0, 1.0)
    gap = float(np.abs(np.cumsum(one) / one.sum() - np.cumsum(two) / two.sum()).max())
    miss = (1.0 - confidence) / 2.0
    reach = sum(math.sqrt(math.log(2.0 / miss) / (2.0 * total)) for total in (float(one.sum()), float(two.sum())))
    return Estimate(gap, max(0.0, gap - reach), min(1.0, gap + reach))


def _check(confidence: float) -> None:
    if not 0.0 < confidence < 1.0:
        raise FitError(f"confidence {confidence} is not between 0 and 1")


def _z(confidence: float) -> float:
    return float(stats.norm.ppf(0.5 + confidence / 2.0))
