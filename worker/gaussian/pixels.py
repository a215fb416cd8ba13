"""How well a map finds the pixels of a defect: pixel AUROC, and the per-region overlap (PRO).

Both are areas under a curve whose x is the share of defect-free pixels over a threshold, and whose y is a weighted
share of defective pixels over it. In the AUROC every defective pixel weighs the same; in the PRO every connected region
does (Bergmann et al., "Uninformed Students", CVPR 2020), and only the false-positive rates up to a limit, 0.3 there,
count. Both are exact: every pixel's value is a threshold, ties are interpolated as the trapezoidal rule does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from gaussline.worker.errors import FitError

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
PRO_LIMIT = 0.3
_TOUCHING = np.ones((3, 3), np.int64)
"""Pixels that touch at a corner are one region, as in the benchmark's own evaluation."""


@dataclass(frozen=True, slots=True)
class PixelResult:
    """What a map was measured to find.

    Attributes:
        auroc: of pixels, 0 … 1.
        pro: area under per-region overlap up to a false-positive rate of `PRO_LIMIT`, divided by it: 0 … 1.
        frames, regions: how many frames with a mask, and connected regions in them.
    """

    auroc: float
    pro: float
    frames: int
    regions: int


class PixelScores:
    """Collects maps and their masks, one frame after the other; bounded in memory.

    Over `max_normal` defect-free pixels, a random half is dropped, and of every later frame only as many are taken: a
    curve of tens of millions of pixels is the same to four digits.
    """

    def __init__(self, rng: np.random.Generator, *, max_normal: int = 40_000_000) -> None:
        self._rng = rng
        self._max = max_normal
        self._share = 1.0
        self._normal: list[NDArray[np.float32]] = []
        self._held = 0
        self._regions: list[NDArray[np.float32]] = []
        self._frames = 0

    def add(self, values: ArrayLike, mask: Mask | None) -> None:
        """One frame: an (H, W) map, and where it is defective; None for a good part. Raises FitError."""
        v = np.asarray(values, np.float32)
        defective = np.zeros(v.shape, np.bool_) if mask is None else np.asarray(mask, np.bool_)
        if v.ndim != 2 or defective.shape != v.shape:
            raise FitError(f"a map of {v.shape} pixels has a mask of {defective.shape}")
        if not np.isfinite(v).all():
            raise FitError("a map holds NaN or infinite values")
        normal = v[~defective]
        if self._share < 1.0:
            normal = normal[self._rng.random(normal.size) < self._share]
        self._normal.append(normal)
        self._held += normal.size
        while self._held > self._max:
            self._share /= 2.0
            self._normal = [part[self._rng.random(part.size) < 0.5] for part in self._normal]
            self._held = sum(part.size for part in self._normal)
        if mask is None:
            return
        self._frames += 1
        labels, count = ndimage.label(defective, structure=_TOUCHING)
        self._regions += [v[labels == region] for region in range(1, count + 1)]

    def result(self, limit: float = PRO_LIMIT) -> PixelResult:
        """Measure what was collected. Raises FitError where there is no defective, or no defect-free, pixel."""
        if not self._regions or not self._held:
            raise FitError("pixel metrics need defective pixels and defect-free ones")
        normal = np.sort(np.concatenate(self._normal))
        regions = [region.astype(np.float64) for region in self._regions]
        pixels = np.concatenate(regions)
        equal = np.full(pixels.size, 1.0 / pixels.size)
        by_region = np.concatenate([np.full(r.size, 1.0 / (len(regions) * r.size)) for r in regions])
        return PixelResult(
            area_up_to(normal, pixels, equal, 1.0),
            area_up_to(normal, pixels, by_region, limit),
            self._frames,
            len(regions),
        )


def area_up_to(normal: ArrayLike, defective: ArrayLike, weights: ArrayLike, limit: float) -> float:
    """∫ y dx / limit for x from 0 to `limit`: x the share of normal, y the weight of defective values over a threshold.

    A defective value enters y at the share of normal values over it; where normal values equal it, it enters linearly
    over theirs. So its part of the area has a closed form, and the normal values alone need sorting.

    Args:
        normal: (n,) values, ascending.
        defective, weights: (m,) values and their weights, which add up to one.
    """
    n = np.asarray(normal)
    d, w = np.asarray(defective), np.asarray(weights, np.float64)
    if not 0.0 < limit <= 1.0:
        raise FitError(f"false-positive limit {limit} is not over 0 and up to 1")
    d = d.astype(n.dtype)
    start = 1.0 - np.searchsorted(n, d, side="right") / n.size  # share of normal values over it
    end = 1.0 - np.searchsorted(n, d, side="left") / n.size  # at or over it
    width = end - start
    into = np.clip(limit - start, 0.0, width)
    ramp = np.divide(into**2, 2.0 * width, out=np.zeros_like(into), where=width > 0.0)
    flat = np.maximum(limit - end, 0.0)
    return float((w * (ramp + flat)).sum() / limit)
