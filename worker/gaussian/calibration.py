"""The working point: from a stated false-positive rate to a decision, by normal frames that the fit has not seen.

A frame fails when its p-value is at most the rate. With the conformal p-value (Vovk, Gammerman, Shafer, "Algorithmic
Learning in a Random World", 2005), p = (1 + #{sᵢ ≥ s}) / (n + 1), a normal frame that is exchangeable with the
calibration frames fails with probability at most the rate, whatever the distribution and however few the frames. The
rate must be at least 1 / (n + 1): below it no frame could ever fail, and the calibration is refused.

The other methods assume more, or promise less; `PROMISES` says what of each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.cross_conformal import CrossConformal, cross_calibrate
from gaussline.worker.gaussian.frames import attainable_rate, frames_needed
from gaussline.worker.gaussian.law import Law, LawKind

__all__ = [
    "BY_LAW",
    "PROMISES",
    "Method",
    "WorkingPoint",
    "attainable_rate",
    "calibrate",
    "clopper_pearson",
    "cross_point",
    "frames_needed",
]
Array = NDArray[np.float64]


class Method(StrEnum):
    """How the working point comes about."""

    CONFORMAL = "conformal"
    EMPIRICAL = "empirical"
    CROSS_CONFORMAL = "cross_conformal"
    PARETO = "pareto"
    CHI_SQUARED = "chi_squared"
    HOTELLING = "hotelling"
    ROBUST = "robust"


PROMISES: Final[Mapping[Method, str]] = {
    Method.CONFORMAL: "a normal frame fails with at most the stated probability, whatever the distribution",
    Method.EMPIRICAL: "about the stated rate for many frames; with few it is exceeded",
    Method.CROSS_CONFORMAL: "near the stated rate in practice; proven is only about twice of it",
    Method.PARETO: "an extrapolation: that the largest scores go on as they began is assumed",
    Method.CHI_SQUARED: "holds only if frames are Gaussian and far more than features; kept for comparison",
    Method.HOTELLING: "exact if frames are Gaussian, which deep features are only roughly",
    Method.ROBUST: "an estimate for frames with unnoticed defects among them: four fifths of them are trusted",
}
"""What each method says of the rate, for people."""
BY_LAW: Final = frozenset({Method.CHI_SQUARED, Method.HOTELLING})
"""Methods that take nothing from calibration frames; those show what rate is realised."""


@dataclass(frozen=True, slots=True, eq=False)
class WorkingPoint:
    """A decision rule at a stated rate.

    Attributes:
        rate: the stated false-positive rate.
        threshold: a frame fails if and only if its score is over it. For `conformal` that is: if and only if its
            p-value is at most the rate, to the bit; `empirical` cuts without the correction for n.
        scores: (n,) calibration scores, ascending, of normal frames unseen by the fit; of `cross_conformal` fold behind
            fold, each ascending.
        law: what gives p-values where calibration scores do not do so alone.
        folds: of `cross_conformal`: how many scores each fold has. A frame then has a score of each fold's fit.
        interval: of `pareto` that of the threshold, of `robust` that of the realised rate, if its law is right; 95 %.
        warning: why this point should not be trusted; empty where there is no special reason.
    """

    method: Method
    rate: float
    threshold: float
    scores: Array
    law: Law | None = None
    folds: tuple[int, ...] = ()
    interval: tuple[float, float] | None = None
    warning: str = ""

    def p_value(self, scores: ArrayLike) -> Array:
        """(m,) scores to (m,) p-values; of `cross_conformal` (m, K), a column a fold. Raises FitError.

        Conformal ones lie in [1/(n+1), 1]; ties count against the frame's strangeness.
        """
        if self.folds:
            return self._crossed.p_value(scores)
        if self.law is not None and self.law.kind is not LawKind.PARETO:
            return self.law.p_value(scores)
        conformal = self._conformal(scores)
        if self.law is None:
            return conformal
        over = np.asarray(scores, np.float64) > self.law.parameters["start"]
        return np.asarray(np.where(over, self.law.p_value(scores), conformal), np.float64)

    @property
    def _crossed(self) -> CrossConformal:
        return CrossConformal(self.rate, tuple(np.split(self.scores, np.cumsum(self.folds)[:-1])))

    def _conformal(self, scores: ArrayLike) -> Array:
        above = self.scores.size - np.searchsorted(self.scores, np.asarray(scores, np.float64), side="left")
        return np.asarray((above + 1.0) / (self.scores.size + 1.0), np.float64)

    def fails(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """(m,) scores (of `cross_conformal` (m, K)) to (m,) decisions. A score that is no number fails."""
        if self.folds:
            return self._crossed.fails(scores)
        decisions: NDArray[np.bool_] = ~(np.asarray(scores, np.float64) <= self.threshold)
        return decisions

    def to_json(self) -> dict[str, Any]:
        """All but the scores, JSON-able."""
        said: dict[str, Any] = {"method": self.method.value, "rate": self.rate, "threshold": self.threshold}
        more = {
            "law": None if self.law is None else self.law.to_json(),
            "folds": list(self.folds),
            "interval": None if self.interval is None else list(self.interval),
            "warning": self.warning,
        }
        return said | {name: value for name, value in more.items() if value}

    @classmethod
    def restore(cls, fields: dict[str, Any], scores: Array) -> WorkingPoint:
        """From `to_json` and the scores. Raises FitError where they are missing or make no sense."""
        ordered = np.asarray(scores, np.float64)
        try:
            law, interval = fields.get("law"), fields.get("interval")
            point = cls(
                Method(fields["method"]),
                float(fields["rate"]),
                float(fields["threshold"]),
                ordered,
                None if law is None else Law.from_json(law),
                tuple(int(fold) for fold in fields.get("folds", ())),
                None if interval is None else (float(interval[0]), float(interval[1])),
                str(fields.get("warning", "")),
            )
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise FitError(f"a stored working point is none: {type(error).__name__}: {error}") from None
        if not (0.0 < point.rate < 1.0 and math.isfinite(point.threshold)):
            raise FitError(f"a stored working point has rate {point.rate} and threshold {point.threshold}")
        point._check()
        return point

    def _check(self) -> None:
        """Raise FitError where the parts of a stored point do not go together."""
        needs_law = self.method not in (Method.CONFORMAL, Method.EMPIRICAL, Method.CROSS_CONFORMAL)
        if (self.law is not None) != needs_law or bool(self.folds) != (self.method is Method.CROSS_CONFORMAL):
            raise FitError(f"a stored {self.method.value} working point has not the parts of one")
        s = self.scores
        if s.ndim != 1 or not np.isfinite(s).all() or (s.size == 0 and self.method not in BY_LAW):
            raise FitError("stored calibration scores are missing or not finite")
        if self.folds and (len(self.folds) < 2 or min(self.folds) < 1 or sum(self.folds) != s.size):
            raise FitError(f"stored folds of {self.folds} do not divide {s.size} calibration scores")
        parts = np.split(s, np.cumsum(self.folds)[:-1]) if self.folds else [s]
        if any((np.diff(part) < 0).any() for part in parts):
            raise FitError("stored calibration scores are out of order")


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


def cross_point(folds: Sequence[ArrayLike], rate: float) -> WorkingPoint:
    """A cross-conformal working point from K arrays of scores, each by the fit that has not seen them. Raises FitError.

    Its threshold is the conformal one of all scores together, for people: what decides is the p-value over all fits.
    """
    rule = cross_calibrate(folds, rate)
    together = np.concatenate(rule.folds)
    threshold = calibrate(together, rate).threshold
    return WorkingPoint(
        Method.CROSS_CONFORMAL, rate, threshold, together, folds=tuple(fold.size for fold in rule.folds)
    )


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
