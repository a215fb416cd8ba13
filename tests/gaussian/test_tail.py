"""The tail's threshold is near the true one, its interval holds it as often as it says, and too little is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.calibration import calibrate
from gaussline.worker.gaussian.tail import (
    FEWEST_EXCEEDANCES,
    SHAPES,
    Tail,
    _likelihood,
    _most_likely,
    _survival,
    fit_tail,
    frames_needed_for_tail,
)

Array = NDArray[np.float64]


def _scores(n: int = 400, seed: int = 0, shape: float = 0.1) -> Array:
    return np.asarray(stats.genpareto(shape, loc=3.0, scale=2.0).rvs(n, random_state=seed))


# --- the fit ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [-0.3, -0.1, 0.0, 0.2, 0.6])
def test_shape_and_scale_are_most_likely(shape: float) -> None:
    x = np.asarray(stats.genpareto(shape, scale=2.0).rvs(2000, random_state=4))
    found, scale, best = _most_likely(x)
    assert found == pytest.approx(shape, abs=0.08)
    assert scale == pytest.approx(2.0, rel=0.1)
    assert best >= float(stats.genpareto.logpdf(x, shape, scale=2.0).sum())
    assert best == pytest.approx(float(stats.genpareto.logpdf(x, found, scale=scale).sum()), rel=1e-9)
    for near in (0.99, 1.01):
        assert _likelihood(x, found, scale * near) < best
        assert _likelihood(x, found + near - 1.0, scale) < best


@pytest.mark.parametrize("shape", [-0.4, -1e-9, 0.0, 1e-9, 0.3])
def test_survival_is_that_of_scipy(shape: float) -> None:
    distances = np.array([0.0, 0.5, 2.0, 4.9, 60.0])
    np.testing.assert_allclose(_survival(distances, shape, 2.0), stats.genpareto.sf(distances, shape, scale=2.0), 1e-6)


@pytest.mark.parametrize("rate", [0.1, 1e-2, 1e-3, 1e-5])
def test_threshold_and_p_value_are_each_others_inverse(rate: float) -> None:
    tail = fit_tail(_scores(), rate)
    assert tail.p_value([tail.threshold])[0] == pytest.approx(rate, rel=1e-9)
    assert tail.interval[0] < tail.threshold < tail.interval[1]
    np.testing.assert_array_equal(tail.fails([tail.threshold, np.nextafter(tail.threshold, np.inf)]), [False, True])


def test_up_to_the_tail_p_values_are_conformal_and_over_it_they_go_on_falling() -> None:
    scores = _scores()
    tail = fit_tail(scores, 1e-3)
    body = np.linspace(scores.min() - 1.0, tail.start, 50)
    np.testing.assert_array_equal(tail.p_value(body), calibrate(scores, 0.01).p_value(body))
    p_values = tail.p_value(np.linspace(scores.min(), 3 * scores.max(), 500))
    assert (np.diff(p_values) <= 0.0).all()
    assert p_values[-1] < 1 / (tail.frames + 1) / 10


def test_within_the_data_the_tail_agrees_with_the_scores() -> None:
    scores = _scores(5000)
    tail = fit_tail(scores, 0.01)
    assert (scores > tail.threshold).mean() == pytest.approx(0.01, abs=0.003)
    assert (tail.exceedances, tail.share, tail.frames) == (750, 0.15, 5000)


def test_the_unit_of_the_scores_does_not_matter() -> None:
    plain, moved = fit_tail(_scores(), 1e-3), fit_tail(_scores() * 1e-6 + 5.0, 1e-3)
    assert moved.threshold == pytest.approx(plain.threshold * 1e-6 + 5.0, rel=1e-9)
    assert moved.shape == pytest.approx(plain.shape, abs=1e-3)
    np.testing.assert_allclose(moved.interval, np.asarray(plain.interval) * 1e-6 + 5.0, rtol=1e-9)


def test_more_confidence_and_smaller_rates_widen_the_interval_and_more_frames_narrow_it() -> None:
    def width(tail: Tail) -> float:
        return tail.interval[1] - tail.interval[0]

    scores = _scores(2000)
    assert width(fit_tail(scores, 1e-3, confidence=0.99)) > width(fit_tail(scores, 1e-3, confidence=0.8))
    assert width(fit_tail(scores, 1e-5)) > width(fit_tail(scores, 1e-3))
    assert width(fit_tail(scores[:300], 1e-3)) > width(fit_tail(scores, 1e-3))


@pytest.mark.parametrize("law", [stats.expon(), stats.genpareto(0.33)], ids=["exponential", "pareto"])
def test_the_interval_holds_the_true_threshold_as_often_as_it_says(law: Any) -> None:
    rng, rate = np.random.default_rng(7), 1e-3
    true, covered = float(law.isf(rate)), 0
    for _ in range(60):
        tail = fit_tail(law.rvs(size=300, random_state=rng), rate)
        covered += tail.interval[0] <= true <= tail.interval[1]
    # Binomial(60, 0.95) is below 50 with a chance of 2e-4.
    assert covered >= 50


def test_at_the_upper_end_of_the_interval_the_rate_is_kept_for_scores_that_are_only_nearly_pareto() -> None:
    rng, law, rate = np.random.default_rng(8), stats.chi(24), 1e-3
    kept = [float(law.sf(fit_tail(law.rvs(size=300, random_state=rng), rate).interval[1])) for _ in range(30)]
    assert np.mean(np.asarray(kept) <= rate) > 0.8


def test_a_bounded_tail_errs_on_the_quiet_side() -> None:
    tail = fit_tail(np.random.default_rng(0).uniform(size=1000), 1e-3)
    assert tail.shape == pytest.approx(SHAPES[0], abs=1e-6)
    assert tail.threshold > 0.999


def test_a_score_that_is_no_number_fails() -> None:
    tail = fit_tail(_scores(), 1e-3)
    assert tail.fails([np.nan, np.inf]).all()
    assert tail.p_value([np.inf])[0] == 0.0


# --- refusals --------------------------------------------------------------------------------------------------------
def test_too_few_exceedances_are_refused_with_the_frames_needed() -> None:
    needed = frames_needed_for_tail()
    assert needed == 200
    fit_tail(_scores(needed), 1e-3)
    with pytest.raises(FitError, match=f"give 29 exceedances, a tail needs at least 30: give at least {needed}"):
        fit_tail(_scores(needed - 1), 1e-3)
    assert frames_needed_for_tail(0.1) == FEWEST_EXCEEDANCES * 10


@pytest.mark.parametrize("rate", [0.15, 0.5, 0.0, -1.0, float("nan")])
def test_a_rate_that_is_not_in_the_tail_is_refused(rate: float) -> None:
    with pytest.raises(FitError, match="use conformal"):
        fit_tail(_scores(), rate)


@pytest.mark.parametrize(
    "scores",
    [np.ones(400), np.concatenate([np.zeros(200), np.ones(200)]), np.concatenate([_scores(380), np.full(61, 1e3)])],
    ids=["all alike", "two values", "ties above"],
)
def test_ties_are_refused(scores: Array) -> None:
    with pytest.raises(FitError, match="too many ties"):
        fit_tail(scores, 1e-3)


@pytest.mark.parametrize("scores", [[1.0, np.nan], [1.0, np.inf], np.ones((300, 2)), 1.0], ids=str)
def test_scores_that_are_no_list_of_numbers_are_refused(scores: Any) -> None:
    with pytest.raises(FitError, match="not finite numbers"):
        fit_tail(scores, 1e-3)


@pytest.mark.parametrize("options", [{"share": 0.0}, {"share": 1.0}, {"confidence": 0.0}, {"confidence": 1.0}], ids=str)
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(FitError, match="is none"):
        fit_tail(_scores(), 1e-3, **options)
