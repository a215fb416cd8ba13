"""Covariances from streaming moments are those of the batch formulas, and what cannot be estimated is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf, oas

from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.covariance import (
    Estimator,
    estimate,
    ledoit_wolf_shrinkage,
    oas_shrinkage,
)
from gaussline.worker.gaussian.moments import Moments
from tests.gaussian.laws import cut, of

Array = NDArray[np.float64]
REFERENCE = {Estimator.LEDOIT_WOLF: ledoit_wolf, Estimator.OAS: oas}
SHRUNK = tuple(REFERENCE)


def _samples(n: int, d: int, seed: int, condition: float = 1e4) -> Array:
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((d, d)))[0]
    x: Array = rng.standard_normal((n, d)) * np.logspace(0, -0.5 * np.log10(condition), d) @ turn
    return x + rng.standard_normal(d)


@pytest.mark.parametrize("estimator", SHRUNK)
@pytest.mark.parametrize(("n", "d"), [(2, 3), (5, 1), (10, 40), (40, 40), (200, 7), (60, 300), (1000, 30)])
def test_any_cut_gives_the_batch_covariance_of_scikit_learn(estimator: Estimator, n: int, d: int) -> None:
    x = _samples(n, d, seed=n + d)
    matrix, shrinkage = REFERENCE[estimator](x)
    rng = np.random.default_rng(1)
    for batches in ([x], list(x), cut(x, rng), cut(x, rng)):
        have = estimate(of(Moments, batches, d), estimator)
        assert have.shrinkage == pytest.approx(float(shrinkage), abs=1e-12)
        assert np.abs(have.matrix - matrix).max() <= 1e-12 * np.abs(matrix).max()
        assert (have.matrix == have.matrix.T).all()
        assert have.effective_size == n


@settings(max_examples=60)
@given(n=st.integers(2, 40), d=st.integers(1, 30), seed=st.integers(0, 2**32 - 1))
def test_shrinkage_is_that_of_scikit_learn_for_any_shape(n: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) ** 3 + 5.0
    moments = of(Moments, cut(x, rng), d)
    assert ledoit_wolf_shrinkage(moments) == pytest.approx(float(ledoit_wolf(x)[1]), abs=1e-12)
    assert oas_shrinkage(moments) == pytest.approx(float(oas(x)[1]), abs=1e-12)


def _weighted_ledoit_wolf(x: Array, w: Array) -> tuple[Array, float]:
    """Ledoit and Wolf's formula for samples with weights, from the samples: β² with Kish's size for n."""
    n, d = w.sum(), x.shape[1]
    y = x - (w[:, None] * x).sum(axis=0) / n
    sample = (w[:, None] * y).T @ y / n
    mu = np.trace(sample) / d
    delta_sq = ((sample - mu * np.eye(d)) ** 2).sum() / d
    spread = sum(weight * ((np.outer(row, row) - sample) ** 2).sum() for weight, row in zip(w, y, strict=True)) / n
    kish = n**2 / (w**2).sum()
    shrinkage = min(spread / d / kish, delta_sq) / delta_sq
    return (1 - shrinkage) * sample + shrinkage * mu * np.eye(d), float(shrinkage)


@pytest.mark.parametrize("factor", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("d", [2, 12, 50])
def test_forgetting_gives_the_weighted_formula_with_kish_size(factor: float, d: int) -> None:
    x = _samples(90, d, seed=d, condition=100)
    moments = Moments(d)
    batches = np.array_split(x, 9)
    for batch in batches:
        moments.decay(factor).update(batch)
    w = np.repeat(factor ** np.arange(8, -1, -1.0), 10)
    matrix, shrinkage = _weighted_ledoit_wolf(x, w)
    have = estimate(moments)
    assert have.shrinkage == pytest.approx(shrinkage, abs=1e-12)
    assert have.shrinkage > 0.0
    assert np.abs(have.matrix - matrix).max() <= 1e-12 * np.abs(matrix).max()
    assert have.effective_size == pytest.approx(w.sum() ** 2 / (w**2).sum(), rel=1e-12)


def test_the_weighted_formula_of_this_test_is_the_plain_one_at_equal_weights() -> None:
    x = _samples(30, 8, seed=3)
    matrix, shrinkage = _weighted_ledoit_wolf(x, np.full(30, 0.3))
    assert shrinkage == pytest.approx(float(ledoit_wolf(x)[1]), abs=1e-12)
    assert np.abs(matrix - ledoit_wolf(x)[0]).max() < 1e-12


def test_weights_that_are_all_alike_change_nothing() -> None:
    moments = of(Moments, [_samples(40, 6, seed=1)], 6)
    for estimator in Estimator:
        plain, lighter = estimate(moments, estimator), estimate(moments.copy().decay(0.25), estimator)
        assert lighter.shrinkage == pytest.approx(plain.shrinkage, abs=1e-13)
        np.testing.assert_allclose(lighter.matrix, plain.matrix, rtol=1e-12)
        assert lighter.effective_size == pytest.approx(40)


def test_unlearning_gives_the_covariance_of_what_stays() -> None:
    x = _samples(120, 9, seed=4)
    moments = of(Moments, [x[:80], x[80:]], 9).subtract(of(Moments, [x[80:]], 9))
    matrix, shrinkage = ledoit_wolf(x[:80])
    have = estimate(moments)
    assert have.shrinkage == pytest.approx(float(shrinkage), abs=1e-9)
    np.testing.assert_allclose(have.matrix, matrix, atol=1e-9 * np.abs(matrix).max())


def test_the_plain_covariance_is_the_unbiased_one() -> None:
    x = _samples(50, 5, seed=2)
    have = estimate(of(Moments, cut(x, np.random.default_rng(0)), 5), Estimator.EMPIRICAL)
    np.testing.assert_allclose(have.matrix, np.cov(x, rowvar=False), rtol=1e-10, atol=1e-14)
    assert have.shrinkage == 0.0


def test_one_dimension_is_not_shrunk() -> None:
    x = np.array([[1.0], [2.0], [4.0]])
    for estimator in SHRUNK:
        have = estimate(of(Moments, [x], 1), estimator)
        assert have.shrinkage == 0.0
        assert have.matrix.item() == pytest.approx(x.var())


def test_shrinkage_of_a_perfect_sphere_is_defined() -> None:
    x = np.concatenate([np.eye(3), -np.eye(3)])
    moments = of(Moments, [x], 3)
    for estimator in SHRUNK:
        have = estimate(moments, estimator)
        assert 0.0 <= have.shrinkage <= 1.0
        np.testing.assert_allclose(have.matrix, np.eye(3) / 3, atol=1e-15)


# --- refusals --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("estimator", Estimator)
@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_frames_are_refused(estimator: Estimator, n: int) -> None:
    with pytest.raises(FitError, match=f"needs at least 2 frames, got {n}"):
        estimate(of(Moments, [np.ones((n, 4))], 4), estimator)


@pytest.mark.parametrize("estimator", Estimator)
@pytest.mark.parametrize("value", [0.0, 0.1, 1.0 / 3.0, -1.1e9])
@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_one_image_repeated_is_refused(estimator: Estimator, value: float, batch: int) -> None:
    x = np.full((1000, 3), value) * np.array([1.0, 0.7, 1e-3])
    with pytest.raises(FitError, match="all 1000 frames have the same features"):
        estimate(of(Moments, np.split(x, range(batch, 1000, batch)), 3), estimator)


@pytest.mark.parametrize(("n", "text"), [(5, "needs more than 5 frames, got 5"), (3, "got 3")])
def test_a_plain_covariance_of_too_few_frames_is_refused(n: int, text: str) -> None:
    with pytest.raises(FitError, match=text):
        estimate(of(Moments, [_samples(n, 5, 0)], 5), Estimator.EMPIRICAL)


def test_a_plain_covariance_says_how_many_channels_are_constant() -> None:
    x = np.concatenate([_samples(50, 4, 0), np.full((50, 2), 0.1)], axis=1)
    with pytest.raises(FitError, match="2 of its 6 channels are constant"):
        estimate(of(Moments, np.array_split(x, 7), 6), Estimator.EMPIRICAL)


def test_a_plain_covariance_of_dependent_channels_is_refused() -> None:
    x = _samples(50, 4, 0)
    with pytest.raises(FitError, match="its directions are dependent"):
        estimate(of(Moments, [np.concatenate([x, x[:, :1] + x[:, 1:2]], axis=1)], 5), Estimator.EMPIRICAL)


@pytest.mark.parametrize("estimator", SHRUNK)
def test_a_constant_channel_is_carried_by_shrinkage(estimator: Estimator) -> None:
    x = np.concatenate([_samples(50, 4, 0), np.full((50, 1), 0.1)], axis=1)
    have = estimate(of(Moments, np.array_split(x, 7), 5), estimator)
    np.testing.assert_allclose(have.matrix, REFERENCE[estimator](x)[0], rtol=1e-10, atol=1e-14)
    assert np.linalg.eigvalsh(have.matrix)[0] > 0.0
