"""The F law holds exactly for Gaussian frames, however few; chi-squared does not, and says so."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.chi_squared import chi_squared, expected_rate, sigma_rate
from gaussline.worker.gaussian.covariance import Estimator
from gaussline.worker.gaussian.density import Gaussian, Projection, fit_gaussian
from gaussline.worker.gaussian.hotelling import HotellingLaw
from gaussline.worker.gaussian.law import Law, LawKind
from gaussline.worker.gaussian.moments import Moments

Array = NDArray[np.float64]


def _fitted(n: int, k: int, rng: np.random.Generator, estimator: Estimator = Estimator.EMPIRICAL) -> Gaussian:
    return fit_gaussian(Moments(k).update(rng.standard_normal((n, k))), estimator)


def _squares(n: int, k: int, trials: int, seed: int) -> Array:
    """Squared distances of one new Gaussian frame a trial, each under a fit of its own."""
    rng = np.random.default_rng(seed)
    return np.array([float(_fitted(n, k, rng).mahalanobis_sq(rng.standard_normal(k))) for _ in range(trials)])


# --- the F law -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("n", "k"), [(3, 1), (4, 3), (12, 5), (40, 30), (200, 24)])
def test_p_values_of_new_gaussian_frames_are_uniform(n: int, k: int) -> None:
    p_values = HotellingLaw(n, k).p_value(_squares(n, k, 500, seed=n))
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3


@pytest.mark.parametrize(("n", "k"), [(3, 1), (12, 5), (200, 24)])
def test_the_law_that_a_model_stores_is_this_one(n: int, k: int) -> None:
    squares = _squares(n, k, 50, seed=n)
    stored = Law(LawKind.HOTELLING, {"features": float(k), "frames": float(n)})
    np.testing.assert_allclose(stored.p_value(np.sqrt(squares)), HotellingLaw(n, k).p_value(squares), rtol=1e-9)


@pytest.mark.parametrize(("n", "k"), [(12, 5), (40, 30)])
def test_chi_squared_p_values_are_not(n: int, k: int) -> None:
    assert stats.kstest(stats.chi2.sf(_squares(n, k, 500, seed=n), k), "uniform").pvalue < 1e-6


def test_one_dimension_is_students_law() -> None:
    # (x - m)² / (s²(1 + 1/n)) is the square of Student's t with n - 1 degrees of freedom.
    n, distance = 9, 2.5
    t = distance / math.sqrt(1.0 + 1.0 / n)
    assert HotellingLaw(n, 1).p_value(distance**2) == pytest.approx(2.0 * stats.t.sf(t, n - 1), rel=1e-12)


@pytest.mark.parametrize("rate", [0.5, 0.0455, 1e-6])
def test_threshold_and_p_value_are_each_others_inverse(rate: float) -> None:
    law = HotellingLaw(50, 8)
    assert law.p_value(law.threshold(rate) ** 2) == pytest.approx(rate, rel=1e-9)


def test_with_many_frames_the_law_is_chi_squared() -> None:
    assert HotellingLaw(10_000_000, 12).threshold(0.01) == pytest.approx(math.sqrt(stats.chi2.isf(0.01, 12)), rel=1e-5)


def test_the_law_is_refused_where_it_does_not_hold() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(FitError, match="not for ledoit_wolf"):
        HotellingLaw.of(_fitted(50, 4, rng, Estimator.LEDOIT_WOLF))
    moments = Moments(4).update(rng.standard_normal((50, 4)))
    for projection in (Projection.PCA, Projection.NPCA, Projection.L2, Projection.STANDARDISED):
        with pytest.raises(FitError, match=f"with projection {projection.value}"):
            HotellingLaw.of(fit_gaussian(moments, Estimator.EMPIRICAL, projection))
    moments.decay(0.9).update(rng.standard_normal((10, 4)))
    with pytest.raises(FitError, match="effective frames of a forgetting fit"):
        HotellingLaw.of(fit_gaussian(moments, Estimator.EMPIRICAL))
    for frames, dimension in ((5, 5), (4, 5), (5, 0)):
        with pytest.raises(FitError, match="needs more than"):
            HotellingLaw(frames, dimension)
    assert HotellingLaw.of(_fitted(50, 4, rng)) == HotellingLaw(50, 4)


@pytest.mark.parametrize("rate", [0.0, 1.0, -1.0, float("nan")])
def test_a_rate_out_of_range_is_refused(rate: float) -> None:
    with pytest.raises(FitError, match="not between 0 and 1"):
        HotellingLaw(9, 2).threshold(rate)
    with pytest.raises(FitError, match="not between 0 and 1"):
        chi_squared(_fitted(9, 2, np.random.default_rng(0)), rate)


# --- chi-squared -----------------------------------------------------------------------------------------------------
def test_sigmas_are_the_published_rates() -> None:
    assert [sigma_rate(n) for n in range(1, 6)] == pytest.approx([0.317, 0.0455, 0.0027, 6.3e-5, 5.7e-7], rel=0.01)


def test_the_threshold_is_the_published_one() -> None:
    gaussian = _fitted(100, 24, np.random.default_rng(0))
    for sigmas in (1, 2, 3):
        want = math.sqrt(stats.chi2.ppf(math.erf(sigmas / math.sqrt(2)), 24))
        assert chi_squared(gaussian, sigma_rate(sigmas)).threshold == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize(("n", "k"), [(60, 24), (200, 24), (600, 24)])
def test_the_rate_that_a_warning_expects_is_the_one_that_comes(n: int, k: int) -> None:
    rng = np.random.default_rng(n)
    rates = []
    for _ in range(60):
        gaussian = _fitted(n, k, rng)
        rates.append(
            (gaussian.mahalanobis(rng.standard_normal((500, k))) > chi_squared(gaussian, 0.0455).threshold).mean()
        )
    expected = expected_rate(n, k, 0.0455)
    assert expected is not None
    assert expected > 0.05
    assert np.mean(rates) == pytest.approx(expected, abs=4 * np.std(rates) / math.sqrt(60))


def test_a_warning_says_what_is_known_from_frames_and_features() -> None:
    rng = np.random.default_rng(0)
    few = chi_squared(_fitted(200, 24, rng), 0.0455).warning
    assert few is not None
    assert (few.frames, few.features, few.shrinkage) == (200.0, 24, 0.0)
    assert few.expected_rate == pytest.approx(0.138, abs=0.002)
    assert "cannot hold with 200 frames of 24 features: 0.138 of the good parts would fail" in few.text
    assert "shrunk" not in few.text
    fewer = chi_squared(_fitted(200, 272, rng, Estimator.LEDOIT_WOLF), 0.0455).warning
    assert fewer is not None
    assert fewer.expected_rate is None
    assert "not even as many frames" in fewer.text
    assert "it is shrunk" in fewer.text


def test_augmented_copies_are_no_new_frames() -> None:
    """A hundred copies of each of 20 frames make a count that would pass; the warning stands, and the law is as bad."""
    rng = np.random.default_rng(3)
    frames = rng.standard_normal((20, 4))
    copies = [frames + 0.1 * rng.standard_normal(frames.shape) for _ in range(100)]
    gaussian = fit_gaussian(Moments(4).update(np.concatenate([frames, *copies])), Estimator.EMPIRICAL)
    assert chi_squared(gaussian, 0.0455).warning is None
    told = chi_squared(gaussian, 0.0455, copies=100)
    assert told.warning is not None
    assert told.warning.frames == pytest.approx(20.0)
    assert "20 frames of 4 features (their 100 copies each are no new frames): " in told.warning.text
    assert (gaussian.mahalanobis(rng.standard_normal((4000, 4))) > told.threshold).mean() > 1.5 * 0.0455


def test_74_frames_a_feature_are_still_too_few() -> None:
    assert expected_rate(74 * 272, 272, 0.0455) == pytest.approx(0.06, abs=0.006)


@pytest.mark.parametrize(("k", "rate"), [(1, 0.5), (1, 0.01), (6, 0.0455), (24, 0.0027)])
def test_from_the_frames_needed_on_there_is_no_warning(k: int, rate: float) -> None:
    gaussian = _fitted(k + 2, k, np.random.default_rng(0))
    warning = chi_squared(gaussian, rate).warning
    assert warning is not None

    def again(count: int) -> Gaussian:
        stored = gaussian.describe() | {"count": float(count)}
        return Gaussian.restore(gaussian.to_arrays(), stored)

    assert chi_squared(again(warning.frames_needed), rate).warning is None
    assert chi_squared(again(warning.frames_needed - 1), rate).warning is not None


def test_controls_have_no_chi_squared_threshold() -> None:
    moments = Moments(3).update(np.random.default_rng(0).standard_normal((50, 3)))
    for projection in (Projection.L2, Projection.STANDARDISED):
        with pytest.raises(FitError, match="a law of Mahalanobis distances"):
            chi_squared(fit_gaussian(moments, projection=projection), 0.05)
    kept = fit_gaussian(moments, projection=Projection.NPCA, variance=0.5)
    assert chi_squared(kept, 0.05).threshold == pytest.approx(math.sqrt(stats.chi2.isf(0.05, kept.rank)))
