"""A stated false-positive rate holds, by the law of conformal prediction, or is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.calibration import (
    Method,
    WorkingPoint,
    calibrate,
    clopper_pearson,
    frames_needed,
)
from gaussline.worker.gaussian.density import fit_gaussian
from gaussline.worker.gaussian.moments import Moments

Array = NDArray[np.float64]
RATES = (0.5, 0.3, 0.2, 0.1, 0.1 + 0.2, 1.0 - 0.9, 1.0 - 0.99, 0.05, 0.01, 1.0 / 3.0, 1.0 / 7.0, 0.99, 1.0 - 1e-12)


# --- coverage --------------------------------------------------------------------------------------------------------
TRAIN, CALIBRATION, FRESH, DIMENSION = 60, 49, 200, 20
Procedure = Callable[[Callable[[Array], Array], Array, Array], WorkingPoint]


def _failures(procedure: Procedure, trials: int, rate: float) -> NDArray[np.int64]:
    """How many of `FRESH` normal frames fail, in each of a number of trials from frames to decisions."""
    rng = np.random.default_rng(17)
    turn = rng.standard_normal((DIMENSION, DIMENSION))
    hits = []
    for _ in range(trials):
        # Heavy tails: the guarantee asks for no Gaussian.
        frames = rng.standard_t(4, (TRAIN + CALIBRATION + FRESH, DIMENSION)) @ turn
        train, held, fresh = np.split(frames, [TRAIN, TRAIN + CALIBRATION])
        gaussian = fit_gaussian(Moments(DIMENSION).update(train))
        hits.append(int(procedure(gaussian.mahalanobis, train, held).fails(gaussian.mahalanobis(fresh)).sum()))
    assert rate > 0
    return np.asarray(hits)


def _follows_the_law(hits: NDArray[np.int64], rate: float) -> None:
    """The counts are those of the beta-binomial law with k = ⌊rate·(n+1)⌋ of n + 1 places."""
    k = math.floor(rate * (CALIBRATION + 1) + 1e-9)
    law = stats.betabinom(FRESH, k, CALIBRATION + 1 - k)
    edges = np.unique([law.ppf(q) for q in np.linspace(0.1, 0.9, 9)])
    expected = np.diff(np.concatenate([[0.0], law.cdf(edges), [1.0]])) * len(hits)
    found = np.bincount(np.searchsorted(edges, hits, side="left"), minlength=edges.size + 1)
    p_value = float(stats.chisquare(found, expected).pvalue)
    assert p_value > 1e-3, f"failures do not follow the law: p = {p_value:.2g}, mean {hits.mean() / FRESH:.3f}"


def _held_out(score: Callable[[Array], Array], train: Array, held: Array) -> WorkingPoint:
    return calibrate(score(held), 0.1)


def _training_scores(score: Callable[[Array], Array], train: Array, held: Array) -> WorkingPoint:
    return calibrate(score(train)[:CALIBRATION], 0.1)


def _gated(score: Callable[[Array], Array], train: Array, held: Array) -> WorkingPoint:
    """Calibrated on frames that an earlier working point let pass."""
    scores = score(held)
    return calibrate(np.resize(scores[~calibrate(scores, 0.1).fails(scores)], CALIBRATION), 0.1)


def test_failures_of_normal_frames_follow_the_beta_binomial_law() -> None:
    _follows_the_law(_failures(_held_out, 400, 0.1), 0.1)


@pytest.mark.parametrize("broken", [_training_scores, _gated])
def test_training_or_gated_scores_do_not_hold_the_rate(broken: Procedure) -> None:
    hits = _failures(broken, 100, 0.1)
    assert hits.mean() / FRESH > 0.15
    with pytest.raises(AssertionError, match="do not follow the law"):
        _follows_the_law(hits, 0.1)


def test_the_rate_realised_on_average_is_the_stated_one_where_it_is_a_step() -> None:
    rng = np.random.default_rng(3)
    realised = [1.0 - calibrate(rng.uniform(size=99), 0.05).threshold for _ in range(2000)]
    # Over calibrations the realised rate of uniform scores is Beta(5, 95).
    assert stats.kstest(realised, stats.beta(5, 95).cdf).pvalue > 1e-3
    assert np.mean(realised) == pytest.approx(0.05, abs=0.002)


# --- p-values and decisions ------------------------------------------------------------------------------------------
@settings(max_examples=200)
@given(
    scores=st.lists(st.integers(0, 12).map(float) | st.floats(-1e6, 1e6), min_size=1, max_size=60),
    probes=st.lists(st.floats(-1e6, 1e6), max_size=5),
    rate=st.sampled_from(RATES) | st.floats(1e-3, 0.999),
)
def test_a_frame_fails_if_and_only_if_its_p_value_is_at_most_the_rate(
    scores: list[float], probes: list[float], rate: float
) -> None:
    if len(scores) < frames_needed(rate):
        return
    point = calibrate(scores, rate)
    around = np.concatenate([np.nextafter(scores, -np.inf), scores, np.nextafter(scores, np.inf), probes])
    np.testing.assert_array_equal(point.fails(around), point.p_value(around) <= rate)
    # Exchangeable with its own calibration frames, no more than the rate may fail: by leave-one-out, exactly.
    assert point.fails(np.asarray(scores)).sum() <= rate * (len(scores) + 1)


def test_p_values_count_ties_as_no_less_strange() -> None:
    point = calibrate([1.0, 2.0, 2.0, 3.0], 0.5)
    np.testing.assert_allclose(point.p_value([0.0, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]) * 5, [5, 5, 4, 4, 2, 2, 1])


def test_all_scores_alike_fail_none_of_them() -> None:
    point = calibrate(np.full(50, 7.0), 0.3)
    assert not point.fails([7.0]).any()
    assert point.fails([np.nextafter(7.0, 8.0)]).all()


@pytest.mark.parametrize("method", Method)
def test_a_score_that_is_no_number_fails(method: Method) -> None:
    point = calibrate(np.arange(20.0), 0.1, method)
    assert point.fails([np.nan, np.inf]).all()
    assert (point.p_value([np.nan, np.inf]) == 1 / 21).all()


@pytest.mark.parametrize("n", [19, 20, 39, 100])
def test_the_order_of_calibration_frames_does_not_matter(n: int) -> None:
    scores = np.random.default_rng(n).standard_normal(n)
    for method in Method:
        assert calibrate(scores, 0.05, method).threshold == calibrate(scores[::-1], 0.05, method).threshold


def test_the_empirical_threshold_is_the_plain_order_statistic() -> None:
    scores = np.arange(1.0, 101.0)
    empirical, conformal = (calibrate(scores, 0.05, method) for method in (Method.EMPIRICAL, Method.CONFORMAL))
    assert (empirical.threshold, conformal.threshold) == (95.0, 96.0)
    assert int(empirical.fails(scores).sum()) == 5
    assert int(conformal.fails(scores).sum()) == 4


def test_the_calibration_scores_are_kept_in_order_and_apart_from_the_callers() -> None:
    scores = np.array([3.0, 1.0, 2.0])
    point = calibrate(scores, 0.5)
    scores[:] = 0.0
    np.testing.assert_array_equal(point.scores, [1.0, 2.0, 3.0])


# --- refusals --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("rate", "needed"), [(0.35, 2), (0.2, 4), (0.1, 9), (0.05, 19), (0.01, 99), (0.001, 999)])
def test_too_few_frames_are_refused_with_the_number_needed(rate: float, needed: int) -> None:
    assert frames_needed(rate) == needed
    calibrate(np.arange(float(needed)), rate)
    with pytest.raises(FitError, match=f"{needed - 1} calibration frames .* at least {needed} are needed"):
        calibrate(np.arange(needed - 1.0), rate)


@given(rate=st.sampled_from(RATES) | st.floats(1e-4, 0.9999))
def test_the_number_needed_is_enough_and_one_less_is_not(rate: float) -> None:
    needed = frames_needed(rate)
    assert 1.0 / (needed + 1.0) <= rate
    assert needed == 1 or 1.0 / needed > rate
    point = calibrate(np.arange(float(needed)), rate)
    assert point.fails([needed]).all()


def test_the_rate_that_a_refusal_offers_is_attainable() -> None:
    for n in range(1, 99):
        with pytest.raises(FitError, match="at least") as refused:
            calibrate(np.arange(float(n)), 0.01)
        offered = float(str(refused.value).split()[-1].rstrip(")"))
        assert offered == pytest.approx(1 / (n + 1), rel=0.01)
        calibrate(np.arange(float(n)), offered)


def test_no_frames_are_refused() -> None:
    with pytest.raises(FitError, match=r"no calibration frames: .* needs at least 1"):
        calibrate([], 0.5)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 2.0, float("nan")])
def test_a_rate_out_of_range_is_refused(rate: float) -> None:
    with pytest.raises(FitError, match="not between 0 and 1"):
        calibrate(np.arange(100.0), rate)
    with pytest.raises(FitError, match="not between 0 and 1"):
        frames_needed(rate)


@pytest.mark.parametrize("scores", [[1.0, np.nan] * 10, [1.0, np.inf] * 10, np.ones((10, 10)), 3.0], ids=str)
def test_scores_that_are_no_list_of_numbers_are_refused(scores: Any) -> None:
    with pytest.raises(FitError, match="not finite numbers"):
        calibrate(scores, 0.1)


# --- storing ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", [Method.CONFORMAL, Method.EMPIRICAL])
def test_storing_is_exact(method: Method) -> None:
    point = calibrate(np.random.default_rng(0).standard_normal(33), 0.07, method)
    twin = WorkingPoint.restore(point.to_json(), point.scores)
    assert (twin.method, twin.rate, twin.threshold) == (point.method, point.rate, point.threshold)
    assert twin.scores.tobytes() == point.scores.tobytes()


@pytest.mark.parametrize(
    "change",
    [
        {"method": "magic"},
        {"rate": 0.0},
        {"rate": 1.0},
        {"rate": None},
        {"threshold": float("nan")},
        {"threshold": float("inf")},
        {"threshold": "high"},
    ],
    ids=str,
)
def test_a_stored_working_point_that_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    point = calibrate(np.arange(20.0), 0.1)
    with pytest.raises(FitError):
        WorkingPoint.restore(point.to_json() | change, point.scores)
    with pytest.raises(FitError):
        WorkingPoint.restore({k: v for k, v in point.to_json().items() if k not in change}, point.scores)


@pytest.mark.parametrize("scores", [[], [2.0, 1.0], [1.0, np.nan], [[1.0, 2.0]]], ids=str)
def test_stored_scores_that_make_no_sense_are_refused(scores: Any) -> None:
    point = calibrate(np.arange(20.0), 0.1)
    with pytest.raises(FitError, match="stored calibration scores"):
        WorkingPoint.restore(point.to_json(), np.asarray(scores, np.float64))


# --- the interval of a realised rate ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [
        (0, 10, 0.0, 0.3084971),
        (1, 20, 0.0012651, 0.2487328),
        (5, 10, 0.1870860, 0.8129140),
        (10, 10, 0.6915029, 1.0),
        (0, 0, 0.0, 1.0),
    ],
)
def test_clopper_and_pearsons_interval_has_its_known_values(hits: int, trials: int, low: float, high: float) -> None:
    assert clopper_pearson(hits, trials) == pytest.approx((low, high), abs=1e-6)


@given(trials=st.integers(1, 300), share=st.floats(0.0, 1.0), confidence=st.sampled_from([0.5, 0.9, 0.99]))
def test_clopper_and_pearsons_interval_is_that_of_scipy(trials: int, share: float, confidence: float) -> None:
    hits = round(share * trials)
    exact = stats.binomtest(hits, trials).proportion_ci(confidence, method="exact")
    assert clopper_pearson(hits, trials, confidence) == pytest.approx((exact.low, exact.high), abs=1e-9)


@pytest.mark.parametrize(("hits", "trials", "confidence"), [(-1, 5, 0.9), (6, 5, 0.9), (1, -1, 0.9), (1, 5, 1.0)])
def test_an_interval_of_no_share_is_refused(hits: int, trials: int, confidence: float) -> None:
    with pytest.raises(FitError, match="is no share"):
        clopper_pearson(hits, trials, confidence)
