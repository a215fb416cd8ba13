"""Streaming moments of one level's features: everything an exact Ledoit–Wolf covariance needs, one batch at a time.

Welford (1962); Chan, Golub, LeVeque, "Algorithms for Computing the Sample Variance" (1983), for the mean and the
scatter. The fourth-order sums Q and T, and how they move with the mean, are this project's own: see `_shift`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg.blas import dsymv, dsyrk

from gaussline.worker.errors import FitError

Array = NDArray[np.float64]
_FIELDS = ("weight", "weight_sq", "mean", "third", "fourth")


class Moments:
    """Weighted moments of d-dimensional samples, in float64. Empty is the identity of `merge`.

    With y = x - mean and weights w (1 until they are forgotten):

    Attributes:
        count: samples ever added less those subtracted; a count, not an effective size.
        weight: n = Σ w.
        weight_sq: W₂ = Σ w².
        mean: (d,).
        scatter: (d, d), S = Σ w·yyᵀ.
        third: (d,), T = Σ w·‖y‖²·y.
        fourth: Q = Σ w·‖y‖⁴.
    """

    __slots__ = ("_halved", "_scatter", "count", "fourth", "mean", "third", "weight", "weight_sq")

    def __init__(self, dimension: int) -> None:
        if dimension < 1:
            raise FitError(f"moments need at least one dimension, not {dimension}")
        self.count = 0
        self.weight = 0.0
        self.weight_sq = 0.0
        self.mean: Array = np.zeros(dimension)
        self._scatter: Array = np.zeros((dimension, dimension))
        self._halved = False
        self.third: Array = np.zeros(dimension)
        self.fourth = 0.0

    @property
    def dimension(self) -> int:
        """d."""
        return int(self.mean.size)

    @property
    def scatter(self) -> Array:
        """S, symmetric to the bit: all that adds to it counts in its upper triangle, of which the lower is a copy."""
        if self._halved:
            for row in range(1, self.dimension):
                self._scatter[row, :row] = self._scatter[:row, row]
            self._halved = False
        return self._scatter

    @scatter.setter
    def scatter(self, value: Array) -> None:
        self._scatter, self._halved = value, False

    @property
    def effective_size(self) -> float:
        """Kish's effective sample size n²/W₂: the number of equally weighted samples that are worth as much."""
        return self.weight * self.weight / self.weight_sq if self.weight_sq > 0 else 0.0

    def copy(self) -> Self:
        """An independent copy."""
        twin = type(self)(self.dimension)
        twin.count, twin.weight, twin.weight_sq, twin.fourth = self.count, self.weight, self.weight_sq, self.fourth
        twin.mean, twin.third = self.mean.copy(), self.third.copy()
        twin._scatter, twin._halved = self._scatter.copy(), self._halved
        return twin

    # --- building ----------------------------------------------------------------------------------------------------
    def update(self, samples: ArrayLike, weights: ArrayLike | None = None) -> Self:
        """Add a batch (b, d), or one sample (d,), each with weight 1 or with its own of (b,). Returns self.

        Raises FitError for another width, NaN, infinity, a weight that is not positive, or numbers too large for their
        fourth power (about 1e77); nothing is changed then.
        """
        x = np.asarray(samples, dtype=np.float64)
        if x.ndim == 1:
            x = x[None, :]
        if x.ndim != 2 or x.shape[1] != self.dimension:
            raise FitError(f"samples have shape {np.shape(samples)}, not (n, {self.dimension})")
        if not np.isfinite(x).all():
            raise FitError("samples hold NaN or infinite values")
        w = None if weights is None else np.asarray(weights, dtype=np.float64)
        if w is not None and (w.shape != (len(x),) or not (np.isfinite(w) & (w > 0.0)).all()):
            raise FitError(f"weights of shape {w.shape} are not one positive number for each of {len(x)} samples")
        if len(x) == 0:
            return self
        # What overflows here is refused before anything is changed.
        with np.errstate(over="ignore", invalid="ignore"):
            return self.merge(Moments.of(x, w)) if self.weight == 0.0 else self._absorb(x, w)

    def _absorb(self, x: Array, w: Array | None) -> Self:
        """What `merge` with the batch's own moments does, in fewer passes over (d, d) numbers: they are what it costs.

        Seen from the new mean, sums are additive: S' = S + n·aaᵀ + Σ w·yyᵀ, and all but S is one product of matrices,
        of the samples' rows and one row √n·a more.
        """
        added = float(len(x)) if w is None else float(w.sum())
        total = self.weight + added
        # Seen from the present mean, a channel that never changes moves nothing by rounding.
        apart = x - self.mean
        delta = apart.mean(axis=0) if w is None else w @ apart / added
        moved = delta * (added / total)
        third, fourth = self._shift(-moved)
        y = np.empty((len(x) + 1, self.dimension))
        np.subtract(apart, moved, out=y[:-1])
        norm_sq = np.einsum("ij,ij->i", y[:-1], y[:-1])
        pull = norm_sq if w is None else w * norm_sq
        fourth += float(pull @ norm_sq)
        _check_finite(fourth)
        self.third = third + pull @ y[:-1]
        self.fourth = fourth
        if w is not None:
            y[:-1] *= np.sqrt(w)[:, None]
        y[-1] = np.sqrt(self.weight) * moved
        # For BLAS, which counts by columns, this is a lower triangle.
        self._scatter = dsyrk(1.0, y.T, beta=1.0, c=self._scatter.T, lower=1, overwrite_c=1).T
        self._halved = True
        self.mean = self.mean + moved
        self.count += len(x)
        self.weight = total
        self.weight_sq += added if w is None else float(w @ w)
        return self

    @classmethod
    def of(cls, samples: Array, weights: Array | None = None) -> Moments:
        """Moments of one batch (b, d) of at least one sample, two-pass: exact to rounding whatever the mean."""
        batch = cls(samples.shape[1])
        batch.count = len(samples)
        if weights is not None:
            return batch._weighted(samples, weights)
        batch.weight = batch.weight_sq = float(len(samples))
        # Seen from the first sample, a channel that never changes has a mean without rounding and a scatter of zero.
        batch.mean = samples[0] + (samples - samples[0]).mean(axis=0)
        y = samples - batch.mean
        norm_sq = np.einsum("ij,ij->i", y, y)
        batch.scatter = y.T @ y
        batch.third = norm_sq @ y
        batch.fourth = float(norm_sq @ norm_sq)
        return batch

    def _weighted(self, samples: Array, weights: Array) -> Self:
        self.weight, self.weight_sq = float(weights.sum()), float(weights @ weights)
        self.mean = samples[0] + weights @ (samples - samples[0]) / self.weight
        y = samples - self.mean
        norm_sq = np.einsum("ij,ij->i", y, y)
        halves = np.sqrt(weights)[:, None] * y  # S = (√w·y)ᵀ(√w·y), symmetric to the bit
        self.scatter = halves.T @ halves
        self.third = (weights * norm_sq) @ y
        self.fourth = float((weights * norm_sq) @ norm_sq)
        return self

    def merge(self, other: Moments) -> Self:
        """Add another set of moments (Chan et al. 1983, extended to T and Q). Returns self; `other` is unchanged.

        Raises FitError for another width, and where the sums would overflow; nothing is changed then.
        """
        self._check_width(other)
        if other.weight == 0.0:
            return self
        if self.weight == 0.0:
            _check_finite(other.fourth)
            self._assign(other.copy())
            return self
        total = self.weight + other.weight
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.weight / total)
        with np.errstate(over="ignore", invalid="ignore"):
            third_a, fourth_a = self._shift(self.mean - mean)
            third_b, fourth_b = other._shift(other.mean - mean)
        # (tr S)² <= nQ and ‖T‖² <= tr(S)·Q: where Q is finite, all the rest is.
        _check_finite(fourth_a + fourth_b)
        self._scatter += other._scatter
        self._scatter += np.outer(delta, delta * (self.weight * other.weight / total))
        self._halved = True
        self.third = third_a + third_b
        self.fourth = fourth_a + fourth_b
        self.mean = mean
        self.count += other.count
        self.weight = total
        self.weight_sq += other.weight_sq
        return self

    def __iadd__(self, other: Moments) -> Self:
        return self.merge(other)

    def subtract(self, other: Moments) -> Self:
        """Unlearn samples that were added with weight 1: the inverse of `merge`. Returns self.

        Raises FitError where more would be taken away than is there. Cancellation costs digits: taking away nearly
        everything leaves nearly nothing that can be trusted.
        """
        self._check_width(other)
        if other.weight == 0.0:
            return self
        rest = self.weight - other.weight
        if rest < 0 or other.count > self.count:
            raise FitError(f"cannot subtract {other.count} samples from {self.count}")
        if rest == 0:
            self._assign(Moments(self.dimension))
            return self
        if other.count == self.count or other.weight_sq >= self.weight_sq:
            raise FitError(f"cannot subtract {other.count} samples from {self.count}: some were forgotten since")
        delta = other.mean - self.mean
        mean = self.mean - delta * (other.weight / rest)
        apart = other.mean - mean
        # Everything is looked at from the mean of what stays, where the sums are additive.
        third_all, fourth_all = self._shift(self.mean - mean)
        third_b, fourth_b = other._shift(other.mean - mean)
        self._scatter -= other._scatter
        self._scatter -= np.outer(apart, apart * (rest * other.weight / self.weight))
        self._halved = True
        self.third = third_all - third_b
        self.fourth = max(0.0, fourth_all - fourth_b)
        self.mean = mean
        self.count -= other.count
        self.weight = rest
        self.weight_sq -= other.weight_sq
        return self

    def decay(self, factor: float) -> Self:
        """Forget: multiply every weight by `factor` in (0, 1]; the mean stays. Returns self."""
        if not 0.0 < factor <= 1.0:
            raise FitError(f"forgetting factor {factor} is not in (0, 1]")
        self.weight *= factor
        self.weight_sq *= factor * factor
        self._scatter *= factor
        self.third *= factor
        self.fourth *= factor
        return self

    def _shift(self, a: Array) -> tuple[Array, float]:
        """T and Q seen from another centre: y' = y + a, where a = old centre - new centre.

        T' = T + tr(S)·a + 2Sa + n‖a‖²a;  Q' = Q + 4aᵀSa + n‖a‖⁴ + 4T·a + 2‖a‖²tr(S).
        """
        trace = float(np.trace(self._scatter))
        moved = dsymv(1.0, self._scatter.T, a, lower=1)
        a_sq = float(a @ a)
        third = self.third + trace * a + 2.0 * moved + self.weight * a_sq * a
        fourth = (
            self.fourth
            + 4.0 * float(a @ moved)
            + self.weight * a_sq * a_sq
            + 4.0 * float(self.third @ a)
            + 2.0 * a_sq * trace
        )
        return third, fourth

    def _check_width(self, other: Moments) -> None:
        if other.dimension != self.dimension:
            raise FitError(f"moments of {other.dimension} dimensions do not fit moments of {self.dimension}")

    def _assign(self, other: Moments) -> None:
        for name in Moments.__slots__:
            setattr(self, name, getattr(other, name))

    # --- storing -----------------------------------------------------------------------------------------------------
    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """As named arrays, for an artefact or a checkpoint; exact, and copies: they stay as they are.

        Of S `triangle` alone: the rows of its upper triangle one behind the other, d(d + 1)/2 numbers.
        """
        arrays: dict[str, NDArray[Any]] = {name: np.array(getattr(self, name), np.float64) for name in _FIELDS}
        arrays["triangle"] = np.concatenate([row[place:] for place, row in enumerate(self._scatter)])
        arrays["count"] = np.asarray(self.count, np.int64)
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """From `to_arrays`; also with the whole S as `scatter`, as earlier builds wrote it.

        Raises FitError where arrays are missing, do not fit each other, or are no moments.
        """
        try:
            moments = cls(int(arrays["mean"].size))
            d = moments.dimension
            moments.count = int(arrays["count"])
            moments.weight, moments.weight_sq = float(arrays["weight"]), float(arrays["weight_sq"])
            moments.fourth = float(arrays["fourth"])
            moments.mean = np.array(arrays["mean"], np.float64).reshape(d)
            moments.third = np.array(arrays["third"], np.float64).reshape(d)
            if "triangle" in arrays:
                moments._restore(np.asarray(arrays["triangle"], np.float64))
            else:
                moments.scatter = np.array(arrays["scatter"], np.float64).reshape(d, d)
        except (KeyError, ValueError, TypeError, OverflowError) as error:
            raise FitError(f"arrays are no moments: {type(error).__name__}: {error}") from None
        problem = moments._problem()
        if problem is not None:
            raise FitError(f"stored moments are not sound: {problem}")
        return moments

    def _restore(self, triangle: Array) -> None:
        d = self.dimension
        if triangle.shape != (d * (d + 1) // 2,):
            raise ValueError(f"a triangle of shape {triangle.shape} is not one of {d} dimensions")
        start = 0
        for place, row in enumerate(self._scatter):
            row[place:] = triangle[start : start + d - place]
            start += d - place
        self._halved = True

    def _problem(self) -> str | None:
        if not all(np.isfinite(values).all() for values in (self._scatter, *(getattr(self, n) for n in _FIELDS))):
            return "they hold NaN or infinite values"
        if min(self.count, self.weight, self.weight_sq, self.fourth) < 0:
            return "a count, a weight or an even moment is negative"
        if not (self.count > 0) == (self.weight > 0) == (self.weight_sq > 0):
            return f"{self.count} samples have a weight of {self.weight:g} and a squared weight of {self.weight_sq:g}"
        # Subtracting leaves a variance of nothing a rounding below zero.
        if float(np.diag(self._scatter).min()) < -1e-9 * max(float(np.trace(self._scatter)), 0.0):
            return "a variance is negative"
        return None


def _check_finite(fourth: float) -> None:
    if not np.isfinite(fourth):
        raise FitError("samples are too large: the fourth power of their distance from the mean overflows")
