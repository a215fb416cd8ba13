"""One score a frame from the distances of its levels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.combination import Combination, Rule

DISTANCES = np.array([[1.0, 2.0, 6.0], [3.0, 3.0, 3.0], [0.0, 0.0, 0.5]])


@pytest.mark.parametrize(
    ("rule", "scores"), [(Rule.SUM, [9.0, 9.0, 0.5]), (Rule.MEAN, [3.0, 3.0, 0.5 / 3]), (Rule.MAX, [6.0, 3.0, 0.5])]
)
def test_rules_that_learn_nothing(rule: Rule, scores: list[float]) -> None:
    combination = Combination.learn(rule, DISTANCES)
    assert combination == Combination(rule)
    np.testing.assert_allclose(combination.combine(DISTANCES), scores)
    assert combination.combine(DISTANCES[0]) == pytest.approx(scores[0])
    assert combination.combine(DISTANCES[:0]).shape == (0,)


def test_roots_are_summed_and_not_squares() -> None:
    # 3² + 4² is the square of 5; the paper's score is 3 + 4.
    assert Combination().combine([3.0, 4.0]) == 7.0


def test_standardised_is_median_and_scaled_median_absolute_deviation() -> None:
    normal = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [4.0, 40.0], [50.0, 500.0]])
    combination = Combination.learn(Rule.STANDARDISED, normal)
    assert combination.offset == (3.0, 30.0)
    np.testing.assert_allclose(combination.scale, [1.4826, 14.826])
    np.testing.assert_allclose(combination.combine([[3.0 + 1.4826, 30.0 + 2 * 14.826]]), [3.0])


def test_standardised_is_on_the_scale_of_a_standard_deviation_for_gaussian_distances() -> None:
    normal = 5.0 + 2.0 * np.random.default_rng(0).standard_normal((20_000, 2))
    np.testing.assert_allclose(Combination.learn(Rule.STANDARDISED, normal).scale, 2.0, rtol=0.03)


def test_standardised_lets_no_level_speak_for_another() -> None:
    combination = Combination(Rule.STANDARDISED, (10.0, 10.0), (1.0, 1.0))
    # Far below the median of one level is no excuse for five deviations over that of the other.
    np.testing.assert_allclose(combination.combine([[15.0, 0.0], [15.0, 10.0], [0.0, 0.0]]), [5.0, 5.0, 0.0])


def test_standardised_does_not_change_with_the_scale_of_a_level() -> None:
    rng = np.random.default_rng(1)
    normal, probes = rng.exponential(size=(50, 3)), rng.exponential(size=(9, 3))
    scale = np.array([1.0, 1e3, 1e-4])
    plain = Combination.learn(Rule.STANDARDISED, normal).combine(probes)
    np.testing.assert_allclose(Combination.learn(Rule.STANDARDISED, normal * scale).combine(probes * scale), plain)


@pytest.mark.parametrize("rule", Rule)
def test_what_is_no_number_stays_none(rule: Rule) -> None:
    combination = Combination.learn(rule, np.random.default_rng(0).uniform(size=(9, 3)))
    assert np.isnan(combination.combine([[np.nan, 1.0, 1.0], [1.0, 1.0, np.nan]])).all()


@pytest.mark.parametrize(
    ("distances", "text"),
    [
        (np.ones((1, 3)), "at least 2 normal frames"),
        (np.ones((0, 3)), "at least 2 normal frames"),
        (np.ones((5, 0)), "at least 2 normal frames"),
        (np.ones(4), "at least 2 normal frames"),
        (np.full((4, 2), np.nan), "finite"),
        (np.column_stack([np.arange(5.0), np.ones(5)]), "level 2 do not vary"),
    ],
)
def test_standardising_on_nothing_is_refused(distances: Any, text: str) -> None:
    with pytest.raises(FitError, match=text):
        Combination.learn(Rule.STANDARDISED, distances)


def test_another_number_of_levels_is_refused() -> None:
    with pytest.raises(FitError, match="has learnt 2 levels"):
        Combination(Rule.STANDARDISED, (0.0, 0.0), (1.0, 1.0)).combine(DISTANCES)


@pytest.mark.parametrize("rule", Rule)
def test_storing_is_exact(rule: Rule) -> None:
    combination = Combination.learn(rule, np.random.default_rng(0).uniform(size=(9, 3)))
    assert Combination.from_json(combination.to_json()) == combination


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"rule": "sum"},
        {"rule": "magic", "offset": [], "scale": []},
        {"rule": "sum", "offset": [1.0], "scale": [1.0]},
        {"rule": "standardised", "offset": [], "scale": []},
        {"rule": "standardised", "offset": [1.0], "scale": [1.0, 2.0]},
        {"rule": "standardised", "offset": [1.0], "scale": [0.0]},
        {"rule": "standardised", "offset": [1.0], "scale": [-1.0]},
        {"rule": "standardised", "offset": [float("nan")], "scale": [1.0]},
        {"rule": "standardised", "offset": ["a"], "scale": [1.0]},
        {"rule": "standardised", "offset": None, "scale": [1.0]},
    ],
    ids=str,
)
def test_stored_nonsense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(FitError):
        Combination.from_json(fields)
