"""Evaluation statistics of scores with known labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from gaussline.worker.errors import FitError

Array = NDArray[np.float64]


def auroc(normal: ArrayLike, defective: ArrayLike) -> float:
    """Area under the ROC curve: the chance that a defective frame outscores a normal one, ties counting half."""
    n, d = _both(normal, defective)
    ranks = rankdata(np.concatenate([n, d]))
    return float((ranks[n.size :].sum() - d.size * (d.size + 1) / 2.0) / (n.size * d.size))


def average_precision(normal: ArrayLike, defective: ArrayLike) -> float:
    """Average precision with defective as the positive class; tied scores enter together."""
    n, d = _both(normal, defective)
    values = np.unique(np.concatenate([n, d]))[::-1]
    hits = d.size - np.searchsorted(np.sort(d), values, side="left")
    false = n.size - np.searchsorted(np.sort(n), values, side="left")
    precision = hits / (hits + false)
    gained = np.diff(np.concatenate([[0], hits])) / d.size
    return float((precision * gained).sum())


def tpr_at_fpr(normal: ArrayLike, defective: ArrayLike, rate: float) -> float:
    """Share of defective frames over the smallest threshold that at most `rate` (0 … 1) of the normal frames exceed.

    A threshold is one of the normal scores, so that it is nowhere better than a threshold that could have been set.
    """
    n, d = _both(normal, defective)
    if not 0.0 <= rate <= 1.0:
        raise FitError(f"false-positive rate {rate} is not between 0 and 1")
    allowed = int(np.floor(rate * n.size + 1e-9))
    if allowed >= n.size:
        return 1.0
    return float((d > np.sort(n)[n.size - allowed - 1]).mean())


def roc_curve(normal: ArrayLike, defective: ArrayLike) -> tuple[Array, Array]:
    """(false-positive rates, true-positive rates) from (0, 0) to (1, 1), one point a distinct score."""
    n, d = _both(normal, defective)
    values = np.unique(np.concatenate([n, d]))[::-1]
    tpr = (d.size - np.searchsorted(np.sort(d), values, side="left")) / d.size
    fpr = (n.size - np.searchsorted(np.sort(n), values, side="left")) / n.size
    return np.concatenate([[0.0], fpr]), np.concatenate([[0.0], tpr])


def bootstrap_auroc(
    normal: ArrayLike, defective: ArrayLike, rng: np.random.Generator, *, draws: int = 500, confidence: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the AUROC; normal and defective frames are drawn apart.

    It says how far the frames at hand carry, for the one model that scored them. Where the two kinds do not overlap it
    has no width: that is no certainty.
    """
    n, d = _both(normal, defective)
    if draws < 1 or not 0.0 < confidence < 1.0:
        raise FitError(f"{draws} draws at a confidence of {confidence} give no interval")
    values = [auroc(n[rng.integers(0, n.size, n.size)], d[rng.integers(0, d.size, d.size)]) for _ in range(draws)]
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return float(low), float(high)


def _both(normal: ArrayLike, defective: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    n, d = np.asarray(normal, np.float64), np.asarray(defective, np.float64)
    if n.ndim != 1 or d.ndim != 1:
        raise FitError(f"scores are one a frame, not of shapes {n.shape} and {d.shape}")
    if n.size == 0 or d.size == 0:
        raise FitError(f"needs normal and defective frames, got {n.size} and {d.size}")
    if not (np.isfinite(n).all() and np.isfinite(d).all()):
        raise FitError("scores hold NaN or infinite values")
    return n, d
