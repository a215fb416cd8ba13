"""Cross-conformal p-values are those of their definition, and hold what is proven of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.calibration import calibrate
from gaussline.worker.gaussian.cross_conformal import CrossConformal, cross_calibrate
from gaussline.worker.gaussian.density import fit_gaussian
from gaussline.worker.gaussian.moments import Moments

Array = NDArray[np.float64]


def _crossed(frames: Array, fresh: Array, folds: int, rate: float) -> tuple[CrossConformal, Array]:
    """The rule over frames (n, d), and the (m, K) scores of fresh frames."""
    held, scores = [], []
    for part in np.array_split(np.arange(len(frames)), folds):
        rest = np.delete(frames, part, axis=0)
        gaussian = fit_gaussian(Moments(frames.shape[1]).update(rest))
        held.append(gaussian.mahalanobis(frames[part]))
        scores.append(gaussian.mahalanobis(fresh))
    return cross_calibrate(held, rate), np.stack(scores, axis=1)


def test_p_values_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    folds = [rng.integers(0, 9, size).astype(float) for size in (5, 6, 4)]
    rule = cross_calibrate(folds, 0.2)
    probes = rng.integers(0, 10, (50, 3)).astype(float)
    want = [
        (1 + sum(int((fold >= score).sum()) for fold, score in zip(folds, row, strict=True))) / 16 for row in probes
    ]
    np.testing.assert_allclose(rule.p_value(probes), want, rtol=1e-15)
    np.testing.assert_array_equal(rule.fails(probes), rule.p_value(probes) <= 0.2)


def test_one_score_for_all_folds_is_split_conformal() -> None:
    scores = np.random.default_rng(1).standard_normal(60)
    rule, split = cross_calibrate(np.split(scores, 4), 0.05), calibrate(scores, 0.05)
    probes = np.linspace(-3, 3, 40)
    np.testing.assert_allclose(rule.p_value(np.tile(probes[:, None], 4)), split.p_value(probes), rtol=1e-15)


def test_the_p_value_is_the_average_in_disguise_that_the_guarantee_rests_on() -> None:
    rng = np.random.default_rng(2)
    folds = [rng.standard_normal(size) for size in (7, 9, 12)]
    probes = rng.standard_normal((20, 3))
    own = [calibrate(fold, 0.5).p_value(probes[:, k]) for k, fold in enumerate(folds)]
    n = 28
    summed = np.sum([(fold.size + 1) * p for fold, p in zip(folds, own, strict=True)], axis=0)
    np.testing.assert_allclose(cross_calibrate(folds, 0.5).p_value(probes), (summed - 2) / (n + 1), rtol=1e-12)


def test_a_score_that_is_no_number_fails() -> None:
    rule = cross_calibrate([np.arange(10.0), np.arange(10.0)], 0.1)
    assert rule.fails(np.full((1, 2), np.nan)).all()


@pytest.mark.parametrize("folds", [2, 5, 10])
def test_the_proven_rate_holds_and_the_stated_one_nearly(folds: int) -> None:
    rng = np.random.default_rng(folds)
    rate, realised, guaranteed = 0.1, [], 1.0
    for _ in range(60):
        frames = rng.standard_t(5, (60, 12))
        rule, scores = _crossed(frames, rng.standard_t(5, (100, 12)), folds, rate)
        realised.append(rule.fails(scores).mean())
        guaranteed = rule.guaranteed_rate
    assert rate < guaranteed < 0.5
    assert np.mean(realised) < guaranteed
    assert np.mean(realised) == pytest.approx(rate, abs=0.03)


def test_the_guarantee_is_about_twice_the_rate_and_never_over_one() -> None:
    many = cross_calibrate([np.arange(10_000.0)] * 5, 0.01)
    assert many.guaranteed_rate == pytest.approx(0.02, abs=2e-4)
    few = cross_calibrate([np.arange(2.0)] * 20, 0.5)
    assert few.guaranteed_rate == 1.0


@pytest.mark.parametrize(
    ("folds", "rate", "text"),
    [
        ([], 0.1, "at least 2 folds, got 0"),
        ([np.arange(20.0)], 0.1, "at least 2 folds, got 1"),
        ([np.arange(20.0), []], 0.1, "missing or not finite"),
        ([np.arange(20.0), [np.nan]], 0.1, "missing or not finite"),
        ([np.arange(20.0), np.ones((2, 2))], 0.1, "missing or not finite"),
        ([np.arange(4.0), np.arange(4.0)], 0.1, "8 frames .* at least 9 are needed"),
        ([np.arange(4.0), np.arange(4.0)], 1.5, "not between 0 and 1"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_what_cannot_calibrate_is_refused(folds: Any, rate: float, text: str) -> None:
    with pytest.raises(FitError, match=text):
        cross_calibrate(folds, rate)


@pytest.mark.parametrize("shape", [(3,), (4, 3), (4, 1), (2, 2, 2)])
def test_scores_of_another_number_of_fits_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(FitError, match="one column a fold's fit"):
        cross_calibrate([np.arange(9.0), np.arange(9.0)], 0.1).p_value(np.zeros(shape))
