"""Evaluation statistics are those of scikit-learn, with ties."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.metrics import auroc, average_precision, bootstrap_auroc, roc_curve, tpr_at_fpr

# Whole numbers tie often, fractions hardly ever.
SCORES = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=30) | st.lists(
    st.floats(-1e3, 1e3), min_size=1, max_size=30
)


def _labelled(normal: list[float], defective: list[float]) -> tuple[list[int], list[float]]:
    return [0] * len(normal) + [1] * len(defective), normal + defective


@given(normal=SCORES, defective=SCORES)
def test_areas_are_those_of_scikit_learn(normal: list[float], defective: list[float]) -> None:
    labels, scores = _labelled(normal, defective)
    assert auroc(normal, defective) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert average_precision(normal, defective) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)


@given(normal=SCORES, defective=SCORES)
def test_the_area_is_the_chance_of_outscoring(normal: list[float], defective: list[float]) -> None:
    n, d = np.asarray(normal)[:, None], np.asarray(defective)[None]
    assert auroc(normal, defective) == pytest.approx(((d > n) + 0.5 * (d == n)).mean(), abs=1e-12)
    assert auroc(defective, normal) == pytest.approx(1.0 - auroc(normal, defective), abs=1e-12)


@given(normal=SCORES, defective=SCORES)
def test_the_curve_is_that_of_scikit_learn(normal: list[float], defective: list[float]) -> None:
    labels, scores = _labelled(normal, defective)
    fpr, tpr = roc_curve(normal, defective)
    want_fpr, want_tpr, _ = sklearn_roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(fpr, want_fpr, atol=1e-12)
    np.testing.assert_allclose(tpr, want_tpr, atol=1e-12)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0.0, 0.0, 1.0, 1.0)
    assert float((np.diff(fpr) * (tpr[1:] + tpr[:-1])).sum() / 2) == pytest.approx(auroc(normal, defective), abs=1e-12)


@given(normal=SCORES, defective=SCORES, rate=st.floats(0.0, 1.0) | st.sampled_from([0.01, 0.05, 0.1, 0.3]))
def test_the_share_found_is_that_at_a_threshold_which_could_be_set(
    normal: list[float], defective: list[float], rate: float
) -> None:
    n, d = np.asarray(normal), np.asarray(defective)
    thresholds = [*np.unique(n), -np.inf]
    best = max(float((d > t).mean()) for t in thresholds if (n > t).sum() <= rate * n.size + 1e-9)
    assert tpr_at_fpr(normal, defective, rate) == best


def test_known_values() -> None:
    normal, defective = np.arange(100.0), np.array([98.5, 99.0, 99.5, 50.0])
    assert tpr_at_fpr(normal, defective, 0.0) == 0.25
    assert tpr_at_fpr(normal, defective, 0.01) == 0.75
    assert tpr_at_fpr(normal, defective, 1.0) == 1.0
    assert auroc([1.0, 1.0], [1.0]) == 0.5
    assert auroc([1.0, 2.0], [3.0, 4.0]) == 1.0
    assert average_precision([1.0, 2.0], [3.0, 4.0]) == 1.0
    assert average_precision([1.0, 1.0, 1.0], [1.0]) == 0.25


@pytest.mark.parametrize("rate", [-0.01, 1.01, float("nan")])
def test_a_rate_out_of_range_is_refused(rate: float) -> None:
    with pytest.raises(FitError, match="not between 0 and 1"):
        tpr_at_fpr([1.0], [2.0], rate)


# --- the bootstrap ---------------------------------------------------------------------------------------------------
def test_the_bootstrap_is_that_of_its_seed() -> None:
    rng = np.random.default_rng(0)
    normal, defective = rng.standard_normal(40), 1.0 + rng.standard_normal(30)
    first, again, other = (bootstrap_auroc(normal, defective, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert first[0] < auroc(normal, defective) < first[1]


def test_the_bootstrap_covers_the_true_area_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    true = 0.7602499389065233  # Φ(1/√2): two unit Gaussians one apart
    covered = 0
    for _ in range(120):
        low, high = bootstrap_auroc(rng.standard_normal(60), 1.0 + rng.standard_normal(60), rng, draws=150)
        covered += low <= true <= high
    # Binomial(120, 0.95) is below 104 with a chance of 1e-4; a percentile interval is a little short.
    assert 104 <= covered <= 120


def test_more_confidence_is_a_wider_interval_and_more_frames_a_narrower_one() -> None:
    rng = np.random.default_rng(5)
    normal, defective = rng.standard_normal(400), 1.0 + rng.standard_normal(400)

    def width(frames: int, confidence: float) -> float:
        drawn = np.random.default_rng(0)
        low, high = bootstrap_auroc(normal[:frames], defective[:frames], drawn, draws=200, confidence=confidence)
        return high - low

    assert width(40, 0.99) > width(40, 0.9) > width(400, 0.9)


def test_frames_without_overlap_give_an_interval_without_width() -> None:
    assert bootstrap_auroc([1.0, 2.0], [3.0], np.random.default_rng(0), draws=20) == (1.0, 1.0)


@pytest.mark.parametrize("options", [{"draws": 0}, {"confidence": 0.0}, {"confidence": 1.0}])
def test_an_interval_of_nothing_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(FitError, match="give no interval"):
        bootstrap_auroc([1.0], [2.0], np.random.default_rng(0), **options)


# --- refusals --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "statistic",
    [auroc, average_precision, roc_curve, lambda n, d: tpr_at_fpr(n, d, 0.1)],
    ids=["roc", "ap", "c", "tpr"],
)
@pytest.mark.parametrize(
    ("normal", "defective", "text"),
    [
        ([], [1.0], "got 0 and 1"),
        ([1.0], [], "got 1 and 0"),
        ([1.0, np.nan], [1.0], "NaN or infinite"),
        ([1.0], [np.inf], "NaN or infinite"),
        (np.ones((2, 2)), [1.0], "one a frame"),
        (1.0, [1.0], "one a frame"),
    ],
)
def test_scores_that_say_nothing_are_refused(
    statistic: Callable[[Any, Any], Any], normal: Any, defective: Any, text: str
) -> None:
    with pytest.raises(FitError, match=text):
        statistic(normal, defective)
