"""Pixel AUROC and per-region overlap, against scikit-learn, a drawn curve, and cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.pixels import PixelScores, area_up_to

VALUES = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=30)


def collected(*frames: tuple[NDArray[np.float64], NDArray[np.bool_] | None], most: int = 10**6) -> PixelScores:
    scores = PixelScores(np.random.default_rng(0), max_normal=most)
    for values, mask in frames:
        scores.add(values, mask)
    return scores


def drawn_area(normal: list[float], defective: list[float], weights: NDArray[np.float64], limit: float) -> float:
    """The same area by drawing the whole curve and the trapezoidal rule."""
    n, d = np.asarray(normal), np.asarray(defective)
    thresholds = np.unique(np.concatenate([n, d]))[::-1]
    x = np.array([0.0, *((n >= t).mean() for t in thresholds)])
    y = np.array([0.0, *(weights[d >= t].sum() for t in thresholds)])
    inside = x < limit
    end = np.interp(limit, x, y)
    # Where the limit falls on a vertical piece, the curve is at its top there; it does not matter for the area.
    xs, ys = np.append(x[inside], limit), np.append(y[inside], end)
    return float((np.diff(xs) * (ys[1:] + ys[:-1])).sum() / 2 / limit)


@given(normal=VALUES, defective=VALUES, limit=st.sampled_from([0.1, 0.3, 0.77, 1.0]))
def test_the_closed_form_is_the_drawn_curve(normal: list[float], defective: list[float], limit: float) -> None:
    weights = np.random.default_rng(len(defective)).random(len(defective))
    weights /= weights.sum()
    found = area_up_to(np.sort(normal), defective, weights, limit)
    thresholds_at_limit = {float((np.asarray(normal) >= t).mean()) for t in normal}
    if limit not in thresholds_at_limit:
        assert found == pytest.approx(drawn_area(normal, defective, weights, limit), abs=1e-9)


@given(normal=VALUES, defective=VALUES)
def test_with_equal_weights_and_no_limit_it_is_the_area_under_the_roc_curve(
    normal: list[float], defective: list[float]
) -> None:
    weights = np.full(len(defective), 1.0 / len(defective))
    labels = [0] * len(normal) + [1] * len(defective)
    want = roc_auc_score(labels, normal + defective)
    assert area_up_to(np.sort(normal), defective, weights, 1.0) == pytest.approx(want, abs=1e-12)


def test_a_case_by_hand() -> None:
    """Ten defect-free pixels 0 … 9; a region of one pixel at 9.5 and one of two at 7.5 and -1.

    The first region is found at once. Of the second one half is found once 8 and 9 are over the threshold, at a
    false-positive rate of 0.2; the other half never below 1. Up to 0.3: (0.5 · 0.3 + 0.25 · 0.1) / 0.3 = 0.58333. Of
    pixels: each of the three weighs a third: (1 + 0.8 + 0) / 3 = 0.6.
    """
    values = np.array([[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [0] * 10, [0] * 10], np.float64)
    mask = np.zeros((3, 10), np.bool_)
    mask[2, [0, 2, 3]] = True
    values[2, [0, 2, 3]] = 9.5, 7.5, -1.0
    values[1], values[2, ~mask[2]] = values[0], np.arange(7.0)
    # Keep ten defect-free pixels: the second row and the rest of the third go into a frame of their own weightless.
    found = collected((values[[0, 2]][:, [0]], mask[[0, 2]][:, [0]])).result()
    assert (found.auroc, found.pro, found.regions) == (1.0, 1.0, 1)
    free = np.arange(10.0)[None]
    both = np.array([[9.5, np.nan, 7.5, -1.0]])
    both[0, 1] = 4.0
    wanted = PixelScores(np.random.default_rng(0))
    wanted.add(np.delete(free, 4, axis=1), None)
    wanted.add(both, np.array([[True, False, True, True]]))
    result = wanted.result(0.3)
    assert (result.frames, result.regions) == (1, 2)
    assert result.pro == pytest.approx((0.5 * 0.3 + 0.25 * 0.1) / 0.3)
    assert result.auroc == pytest.approx(0.6)


def test_pixels_that_touch_at_a_corner_are_one_region_and_small_regions_weigh_as_much_as_large_ones() -> None:
    mask = np.zeros((8, 8), np.bool_)
    mask[0, 0] = mask[1, 1] = True
    mask[4:8, 4:8] = True
    values = np.zeros((8, 8))
    values[4:8, 4:8] = 1.0  # the large region is found, the small one ties with the background
    found = collected((values, mask)).result()
    assert found.regions == 2
    # 16 of 18 pixels found at once, the others by luck; half of the regions at once, the other half by luck.
    assert found.auroc == pytest.approx((16 + 2 * 0.5) / 18)
    assert found.pro == pytest.approx(0.5 + 0.5 * 0.15)


def test_thinning_hardly_moves_the_numbers() -> None:
    rng = np.random.default_rng(1)
    frames = []
    for _ in range(12):
        mask = np.zeros((50, 50), np.bool_)
        mask[10:20, 10:20] = True
        frames.append((rng.standard_normal((50, 50)) + 1.5 * mask, mask))
    whole, thin = collected(*frames).result(), collected(*frames, most=8000).result()
    assert thin.auroc == pytest.approx(whole.auroc, abs=0.005)
    assert thin.pro == pytest.approx(whole.pro, abs=0.02)
    assert thin.regions == whole.regions == 12


def test_thinning_weighs_early_and_late_frames_alike() -> None:
    rng = np.random.default_rng(2)
    frames = []
    for number in range(12):  # the background grows brighter from frame to frame
        mask = np.zeros((50, 50), np.bool_)
        mask[10:20, 10:20] = True
        frames.append((0.5 * number + rng.standard_normal((50, 50)) * ~mask + 3.0 * mask, mask))
    whole, thin = collected(*frames).result(), collected(*frames, most=8000).result()
    assert thin.auroc == pytest.approx(whole.auroc, abs=0.01)


def test_what_says_nothing_is_refused() -> None:
    with pytest.raises(FitError, match="has a mask of"):
        collected((np.zeros((4, 4)), np.zeros((4, 5), np.bool_)))
    with pytest.raises(FitError, match="NaN"):
        collected((np.full((4, 4), np.nan), None))
    with pytest.raises(FitError, match="need defective pixels"):
        collected((np.zeros((4, 4)), None)).result()
    with pytest.raises(FitError, match="need defective pixels"):
        collected((np.zeros((4, 4)), np.ones((4, 4), np.bool_))).result()
    with pytest.raises(FitError, match="limit"):
        area_up_to([0.0], [1.0], [1.0], 0.0)
