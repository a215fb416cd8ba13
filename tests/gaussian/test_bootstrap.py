"""Intervals of evaluation statistics: the right statistic, the right images, about the right coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gaussline.worker.errors import FitError
from gaussline.worker.gaussian import metrics
from gaussline.worker.gaussian.bootstrap import RATES, Scored, intervals, statistics, weighted_statistics

SCORES = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=25) | st.lists(
    st.floats(-1e3, 1e3), min_size=1, max_size=25
)
TRUE_AREA = 0.7602499389065233
"""Φ(1/√2): two unit Gaussians one apart."""


def scored(normal: NDArray[np.float64], defective: NDArray[np.float64], first: int = 0) -> Scored:
    return Scored(normal, defective, np.arange(first, first + normal.size), np.arange(defective.size))


@given(normal=SCORES, defective=SCORES)
def test_statistics_are_those_of_the_metrics(normal: list[float], defective: list[float]) -> None:
    found = statistics([scored(np.asarray(normal), np.asarray(defective))])
    assert found["auroc"] == pytest.approx(metrics.auroc(normal, defective), abs=1e-12)
    assert found["average_precision"] == pytest.approx(metrics.average_precision(normal, defective), abs=1e-12)
    for name, rate in RATES.items():
        assert found[name] == pytest.approx(metrics.tpr_at_fpr(normal, defective, rate), abs=1e-12)


@given(normal=SCORES, defective=SCORES, seed=st.integers(0, 99))
def test_a_weight_is_a_repetition(normal: list[float], defective: list[float], seed: int) -> None:
    n, d = np.asarray(normal), np.asarray(defective)
    rng = np.random.default_rng(seed)
    wn, wd = rng.integers(0, 4, n.size), rng.integers(0, 4, d.size)
    wn[0], wd[0] = 1, 1
    weighted = weighted_statistics(n, d, wn[None], wd[None])
    plain = statistics([scored(np.repeat(n, wn), np.repeat(d, wd))])
    for name, value in plain.items():
        assert weighted[name][0] == pytest.approx(value, abs=1e-12), name


def test_a_draw_without_one_kind_is_no_number() -> None:
    found = weighted_statistics([1.0, 2.0], [3.0], [[0, 0], [1, 1]], [[1], [0]])
    assert all(np.isnan(value).all() for value in found.values())


def test_intervals_cover_the_true_area_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(150):
        one = scored(rng.standard_normal(80), 1.0 + rng.standard_normal(80))
        low, high = intervals({"x": [one]}, rng, draws=200)["x"]["auroc"]
        covered += low <= TRUE_AREA <= high
    # Binomial(150, 0.95) is below 131 with a chance of 2e-4; a percentile interval is a little short.
    assert 131 <= covered <= 150


def test_ten_runs_over_the_same_images_are_not_ten_times_the_images() -> None:
    """A mean over fits of one image set hardly narrows: independent draws a run would claim a third of the width."""
    rng = np.random.default_rng(5)
    normal, defective = rng.standard_normal(100), 1.0 + rng.standard_normal(100)
    runs = [
        scored(normal + 0.1 * rng.standard_normal(100), defective + 0.1 * rng.standard_normal(100)) for _ in range(10)
    ]
    widths = [
        float(np.diff(intervals({"x": some}, np.random.default_rng(1), draws=300)["x"]["auroc"])[0])
        for some in (runs[:1], runs)
    ]
    assert widths[1] > 0.9 * widths[0]
    apart = [scored(rng.standard_normal(100), defective, first=100 * number) for number in range(10)]
    narrower = intervals({"x": apart}, np.random.default_rng(1), draws=300)["x"]["auroc"]
    assert narrower[1] - narrower[0] < 0.85 * widths[0]


def test_an_image_is_known_by_its_number_and_not_by_its_place() -> None:
    rng = np.random.default_rng(7)
    one = scored(rng.standard_normal(40), 1.0 + rng.standard_normal(30))
    n, d = rng.permutation(40), rng.permutation(30)
    same = Scored(one.normal[n], one.defective[d], one.normal_ids[n], one.defective_ids[d])
    want, found = (intervals({"x": runs}, np.random.default_rng(1), draws=60) for runs in ([one, one], [one, same]))
    for name, limits in want["x"].items():
        assert found["x"][name] == pytest.approx(limits, abs=1e-12), name


def test_columns_share_their_draws_and_seeds_decide() -> None:
    rng = np.random.default_rng(6)
    one = scored(rng.standard_normal(30), 1.0 + rng.standard_normal(30))
    first, again, other = (intervals({"a": [one], "b": [one]}, np.random.default_rng(s), draws=50) for s in (1, 1, 2))
    assert first["a"] == first["b"]
    assert first == again
    assert first != other


@pytest.mark.parametrize(("draws", "confidence"), [(0, 0.95), (10, 0.0), (10, 1.0)])
def test_an_interval_of_nothing_is_refused(draws: int, confidence: float) -> None:
    one = scored(np.zeros(2), np.ones(2))
    with pytest.raises(FitError, match="give no interval"):
        intervals({"x": [one]}, np.random.default_rng(0), draws=draws, confidence=confidence)
