"""Protocols never leak, tables say what was measured, contamination moves what it says it moves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn.model_selection import KFold
from sklearn.svm import OneClassSVM

from gaussline.worker.contract.model import Model
from gaussline.worker.contract.spec import BackboneSpec
from gaussline.worker.errors import FitError, SourceError
from gaussline.worker.gaussian.chi_squared import sigma_rate
from gaussline.worker.gaussian.combination import Rule
from gaussline.worker.gaussian.density import Projection
from gaussline.worker.gaussian.metrics import auroc
from gaussline.worker.learning import contamination, controls, evaluation
from gaussline.worker.learning.category import Category
from gaussline.worker.learning.contamination import contamination_table, stratified_order
from gaussline.worker.learning.dataset import Dataset, Sample
from gaussline.worker.learning.evaluation import defect_table, level_table, run_all, run_plan
from gaussline.worker.learning.fit import FitOptions, Fitted, fit_gaussians, fit_model, fit_moments, fit_rows
from gaussline.worker.learning.protocol import Plan, Protocol, leaks, plans
from gaussline.worker.learning.result_table import ResultTable, over_categories, shown
from tests.learning.synthetic import CHANNELS, SPEC, normal

LEVELS = SPEC.levels
OPTIONS = FitOptions(rule=Rule.SUM)
GOOD, BAD = 120, 40


def category(*, own_split: bool = False, shift: float = 0.2, name: str = "parts") -> Category:
    """Normal frames of one distribution; defective ones of two kinds, moved along every channel."""
    good = normal(GOOD)
    bad = [level[:BAD] + np.float32(shift) for level in normal(GOOD, seed=1)]
    samples = []
    for row in range(GOOD):
        split = None if not own_split else "train" if row < 80 else "test"
        samples.append(Sample(Path(f"{name}/good/{row}.png"), "good", split))
    for row in range(BAD):
        samples.append(Sample(Path(f"{name}/bad/{row}.png"), "dent" if row < 30 else "scratch", "test"))
    features = [np.concatenate(pair) for pair in zip(good, bad, strict=True)]
    digests = tuple(f"{row:064x}" for row in range(GOOD + BAD))
    return Category(name, Dataset(Path(name), tuple(samples)), features, digests, ((8, 8),) * (GOOD + BAD))


# --- protocols -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("protocol", list(Protocol))
@pytest.mark.parametrize("own_split", [False, True])
def test_no_run_scores_what_it_was_fitted_on(protocol: Protocol, own_split: bool) -> None:
    """By the numbers, not by the rows: the features of everything scored are spoilt, and the fit must not move."""
    one = category(own_split=own_split)
    for plan in plans(one.data, protocol, folds=4, seeds=(0, 1)):
        spoilt = [level.copy() for level in one.features]
        for level in spoilt:
            level[np.concatenate([plan.normal, plan.defective])] += 1000.0
        fit, other = (
            run_plan(replace(one, features=features), plan, LEVELS, OPTIONS, keep=True).fitted
            for features in (one.features, spoilt)
        )
        assert fit is not None
        assert other is not None
        for a, b in zip(fit.gaussians, other.gaussians, strict=True):
            np.testing.assert_array_equal(a.mean, b.mean)
            np.testing.assert_array_equal(a.whitening, b.whitening)


def test_a_plan_that_leaks_cannot_be_made() -> None:
    rows = np.arange(10)
    with pytest.raises(FitError, match="2 images are fitted on and scored as normal: a leak"):
        Plan(0, None, rows[:5], rows[3:8], rows[8:])
    with pytest.raises(FitError, match="scored as defective: a leak"):
        Plan(0, None, rows[:5], rows[5:8], rows[4:5])
    with pytest.raises(FitError, match="as normal and as defective"):
        Plan(0, None, rows[:5], rows[5:8], rows[7:9])
    with pytest.raises(FitError, match="no normal images are left"):
        Plan(0, None, rows[:5], rows[:0], rows[7:9])


def test_folds_are_those_of_scikit_learn_and_score_each_normal_image_once() -> None:
    one = category()
    made = plans(one.data, Protocol.FOLDS, folds=5, seeds=(3,))
    want = KFold(5, shuffle=True, random_state=3).split(np.arange(GOOD))
    for plan, (train, held) in zip(made, want, strict=True):
        np.testing.assert_array_equal(plan.train, train)
        np.testing.assert_array_equal(plan.normal, held)
        assert plan.defective.size == BAD
    assert sorted(np.concatenate([plan.normal for plan in made]).tolist()) == list(range(GOOD))


def test_the_papers_protocol_scores_the_whole_test_set_with_every_fold_of_the_training_images() -> None:
    made = plans(category(own_split=True).data, Protocol.PAPER)
    assert [plan.fold for plan in made] == [0, 1, 2, 3, 4]
    for plan in made:
        assert plan.train.size == 64
        assert plan.train.max() < 80
        assert plan.normal.tolist() == list(range(80, GOOD))
        assert plan.defective.size == BAD
    own = plans(category().data, Protocol.PAPER, train_share=0.5)
    assert {tuple(plan.normal) for plan in own} == {tuple(own[0].normal)}
    assert own[0].normal.size == 60
    assert own[0].train.size == 48


def test_a_folder_with_its_own_split_has_one_run_and_needs_normal_test_images() -> None:
    one = category(own_split=True)
    assert len(plans(one.data, Protocol.SPLIT, seeds=(0, 1, 2))) == 1
    none = Dataset(one.data.root, tuple(s for s in one.data.samples if not (s.normal and s.fixed_split == "test")))
    with pytest.raises(SourceError, match="test/good holds no images"):
        plans(none, Protocol.SPLIT)


def test_numbers_that_make_no_sense_are_refused() -> None:
    data = category().data
    with pytest.raises(FitError, match="training share 1"):
        plans(data, Protocol.SPLIT, train_share=1.0)
    with pytest.raises(FitError, match="folds of 120 normal images"):
        plans(data, Protocol.FOLDS, folds=1)
    with pytest.raises(FitError, match="no seeds"):
        plans(data, Protocol.SPLIT, seeds=())


def test_copies_across_a_split_are_counted() -> None:
    one = category()
    plan = plans(one.data, Protocol.SPLIT)[0]
    assert leaks(plan, one.digests) == 0
    digests = list(one.digests)
    digests[plan.normal[0]] = digests[plan.defective[3]] = digests[plan.train[0]]
    assert leaks(plan, digests) == 2


# --- tables ----------------------------------------------------------------------------------------------------------
def test_the_table_of_levels_is_the_mean_of_the_runs() -> None:
    one = category()
    made = plans(one.data, Protocol.SPLIT, seeds=(0, 1, 2))
    runs = run_all(one, made, LEVELS, OPTIONS)
    table = level_table(runs, LEVELS, Rule.SUM, draws=50, confidence=0.9, seed=0)
    assert [row[0] for row in table.rows] == [*LEVELS, "sum"]
    areas = [auroc(run.normal.sum(axis=1), run.defective.sum(axis=1)) for run in runs]
    row = table.row("sum")
    assert row["AUROC"] == pytest.approx(np.mean(areas))
    assert row["AUROC, spread over runs"] == pytest.approx(np.std(areas, ddof=1))
    assert float(row["AUROC, low"] or 0) < np.mean(areas) < float(row["AUROC, high"] or 0)
    deep = [auroc(run.normal[:, 2], run.defective[:, 2]) for run in runs]
    assert table.row("deep")["AUROC"] == pytest.approx(np.mean(deep))
    kinds = defect_table(one, runs, Rule.SUM)
    assert [row[:2] for row in kinds.rows] == [["dent", 30], ["scratch", 10]]
    with pytest.raises(KeyError):
        table.row("nothing")


def test_an_interval_without_width_is_no_certainty() -> None:
    overlapping, apart = category(), category(shift=50.0)
    for one, certain in ((overlapping, False), (apart, True)):
        runs = run_all(one, plans(one.data, Protocol.SPLIT), LEVELS, OPTIONS)
        table = level_table(runs, LEVELS, Rule.SUM, draws=10, confidence=0.9, seed=0)
        assert (table.row("sum")["AUROC, low"] == 1.0) == certain
        assert ("without width" in table.note) == certain


def test_another_rule_has_its_own_row_beside_the_papers_sum() -> None:
    one = category()
    runs = run_all(one, plans(one.data, Protocol.SPLIT), LEVELS, replace(OPTIONS, rule=Rule.STANDARDISED))
    table = level_table(runs, LEVELS, Rule.STANDARDISED, draws=10, confidence=0.9, seed=0)
    assert [row[0] for row in table.rows][-2:] == ["sum", "standardised"]


def test_the_papers_tables() -> None:
    one = category()
    made = plans(one.data, Protocol.SPLIT, seeds=(0, 1))
    prepared = controls.prepare(one, made, LEVELS, OPTIONS)
    told: list[int] = []
    simple = controls.control_table(one, prepared, LEVELS, OPTIONS, told.append)
    assert [row[0] for row in simple.rows] == ["L2", "SED", "Mahalanobis", "one-class SVM"]
    assert float(simple.row("Mahalanobis")["sum"] or 0) > float(simple.row("L2")["sum"] or 0)
    parts = controls.component_table(one, prepared, LEVELS, OPTIONS, told.append)
    assert [row[0] for row in parts.rows][:5] == ["PCA 0.95", "PCA 0.99", "NPCA 0.99", "NPCA 0.999", "NPCA 0.9999"]
    assert parts.row("all directions")["sum"] == simple.row("Mahalanobis")["sum"]
    assert parts.row("all directions")["directions kept"] == sum(CHANNELS)
    assert 0 < int(parts.row("PCA 0.95")["directions kept"] or 0) < sum(CHANNELS)
    together = controls.combination_table(one, made, LEVELS, OPTIONS, told.append)
    assert together.row("sum")["AUROC"] == together.row("mean")["AUROC"]
    assert [row[0] for row in together.rows][4:] == [f"sum without {level}" for level in LEVELS]
    sigma = controls.sigma_table(one, prepared, LEVELS, OPTIONS, told.append)
    assert len(sigma.rows) == 5 * len(LEVELS)
    row = sigma.row("deep at 2 σ")
    assert row["stated FPR"] == pytest.approx(sigma_rate(2))
    assert row["can the law hold"] == "not with so few images"
    assert sum(told) == 4 + 6 + 2 + 2


def test_controls_are_what_they_are_called() -> None:
    one = category()
    made = plans(one.data, Protocol.SPLIT)
    prepared = controls.prepare(one, made, LEVELS, OPTIONS)
    simple = controls.control_table(one, prepared, LEVELS, OPTIONS, lambda done: None)
    x = one.features[1].astype(np.float64)
    machine = OneClassSVM(kernel="rbf", gamma="scale").fit(x[made[0].train])
    normal_scores, defective_scores = (-machine.score_samples(x[rows]) for rows in (made[0].normal, made[0].defective))
    assert simple.row("one-class SVM")["middle"] == pytest.approx(auroc(normal_scores, defective_scores))
    for name, scale in (("L2", np.ones(x.shape[1])), ("SED", x[made[0].train].std(axis=0, ddof=1))):
        far = np.linalg.norm((x - x[made[0].train].mean(axis=0)) / scale, axis=1)
        assert simple.row(name)["middle"] == pytest.approx(auroc(far[made[0].normal], far[made[0].defective]))
    # The published threshold is about all directions, whatever the evaluation projects on.
    asked = replace(OPTIONS, projection=Projection.PCA, variance=0.5)
    sigma = controls.sigma_table(one, prepared, LEVELS, asked, lambda done: None)
    assert sigma.rows == controls.sigma_table(one, prepared, LEVELS, OPTIONS, lambda done: None).rows


def test_what_a_run_draws_follows_its_own_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    one = category()
    drawn: list[int] = []

    def watched(features: Any, rows: Any, levels: Any, options: FitOptions, copies: Any) -> Fitted:
        drawn.append(options.seed)
        return fit_rows(features, rows, levels, options, copies)

    monkeypatch.setattr(evaluation, "fit_rows", watched)
    run_all(one, plans(one.data, Protocol.SPLIT, seeds=(3, 4)), LEVELS, OPTIONS)
    assert drawn == [3, 4]


@pytest.mark.parametrize("robust", [False, True])
def test_the_papers_tables_fit_on_what_the_evaluation_fits_on(robust: bool) -> None:
    one = category()
    for level in one.features:
        level[:8] += 5.0  # what a robust fit leaves out
    rng = np.random.default_rng(5)
    copies = tuple(
        [level + rng.normal(0.0, 0.3, level.shape).astype(np.float32) for level in one.features] for _ in "ab"
    )
    one, asked = replace(one, copies=copies), replace(OPTIONS, robust=robust)
    made = plans(one.data, Protocol.SPLIT, seeds=(0, 1))
    runs = run_all(one, made, LEVELS, asked)
    levels = level_table(runs, LEVELS, Rule.SUM, draws=10, confidence=0.9, seed=0)
    prepared = controls.prepare(one, made, LEVELS, asked)
    assert all((len(each.rows) < each.plan.train.size) == robust for each in prepared)
    simple = controls.control_table(one, prepared, LEVELS, asked, lambda done: None)
    for name in (*LEVELS, "sum"):
        assert simple.row("Mahalanobis")[name] == pytest.approx(levels.row(name)["AUROC"])
    bare = controls.prepare(replace(one, copies=()), made, LEVELS, asked)
    without = controls.control_table(replace(one, copies=()), bare, LEVELS, asked, lambda done: None)
    for name in ("L2", "SED", "Mahalanobis", "one-class SVM"):
        assert simple.row(name) != without.row(name)
    sigma = controls.sigma_table(one, prepared, LEVELS, asked, lambda done: None)
    assert "augmented copies" in sigma.note
    assert sigma.row("shallow at 2 σ")["realised FPR"] == pytest.approx(
        np.mean([(run.normal[:, 0] > np.sqrt(stats.chi2.isf(sigma_rate(2), CHANNELS[0]))).mean() for run in runs])
    )


def test_a_constant_channel_has_no_say_in_the_standardised_control() -> None:
    one = category()
    level = one.features[1].copy()
    level[:, 3] = 2.0
    level[-1, 3] = 9.0  # constant over the training images alone
    spoilt = replace(one, features=[one.features[0], level, one.features[2]])
    prepared = controls.prepare(spoilt, plans(one.data, Protocol.SPLIT), LEVELS, OPTIONS)
    table = controls.control_table(spoilt, prepared, LEVELS, OPTIONS, lambda done: None)
    assert all(isinstance(cell, float) for cell in table.rows[1][1:])


def test_a_level_that_is_cut_into_regions_is_one_row_everywhere() -> None:
    one = category()
    names = (*(f"wide@2/{row}.{column}" for row in range(2) for column in range(2)), "deep")
    regions = [one.features[0] + np.float32(0.01 * place) for place in range(4)]
    cut = replace(one, features=[*regions, one.features[2]])
    made = plans(cut.data, Protocol.SPLIT, seeds=(0, 1))
    runs = run_all(cut, made, names, OPTIONS)
    assert runs[0].normal.shape == (36, 2)
    table = level_table(runs, names, Rule.SUM, draws=10, confidence=0.9, seed=0)
    assert [row[0] for row in table.rows] == ["wide", "deep", "sum"]
    for run in runs:
        np.testing.assert_allclose(run.combined_normal, run.normal.sum(axis=1))
    prepared = controls.prepare(cut, made, names, OPTIONS)
    simple = controls.control_table(cut, prepared, names, OPTIONS, lambda done: None)
    assert simple.columns == ("score", "wide", "deep", "sum")
    assert simple.row("Mahalanobis")["sum"] == pytest.approx(table.row("sum")["AUROC"])
    assert simple.row("Mahalanobis")["wide"] == pytest.approx(table.row("wide")["AUROC"])
    together = controls.combination_table(cut, made, names, OPTIONS, lambda done: None)
    assert [row[0] for row in together.rows][4:] == ["sum without wide", "sum without deep"]
    parts = controls.component_table(cut, prepared, names, OPTIONS, lambda done: None)
    assert len(parts.columns) == len(parts.rows[0])
    # The farthest of several regions follows no chi-squared law.
    sigma = controls.sigma_table(cut, prepared, names, OPTIONS, lambda done: None)
    assert {str(row[0]).partition(" ")[0] for row in sigma.rows} == {"deep"}


# --- contamination ---------------------------------------------------------------------------------------------------
def test_every_beginning_of_the_order_is_stratified() -> None:
    kinds = ["a"] * 60 + ["b"] * 30 + ["c"] * 10
    order = stratified_order(np.arange(100), kinds, np.random.default_rng(0))
    assert sorted(order.tolist()) == list(range(100))
    for count in (10, 20, 50):
        taken = [kinds[row] for row in order[:count]]
        for kind, share in (("a", 0.6), ("b", 0.3), ("c", 0.1)):
            assert abs(taken.count(kind) - share * count) <= 1.5, (count, kind)


def test_contamination_is_measured_on_the_same_images_at_every_share(monkeypatch: pytest.MonkeyPatch) -> None:
    one = category()
    made = plans(one.data, Protocol.SPLIT, seeds=(0,))
    fitted: list[int] = []
    scored: list[bytes] = []

    def watching(features: list[NDArray[np.float32]], spec: BackboneSpec, options: FitOptions, copies: Any) -> Model:
        if not options.robust:
            fitted.append(len(features[0]))
        return fit_model(features, spec, options, copies=copies)

    def area(normal: NDArray[np.float64], defective: NDArray[np.float64]) -> float:
        scored.append(bytes(str((normal.size, defective.size)), "ascii"))
        return auroc(normal, defective)

    monkeypatch.setattr(contamination, "fit_model", watching)
    monkeypatch.setattr(contamination, "auroc", area)
    table = contamination_table(one, made, SPEC, OPTIONS)
    assert fitted == [84, 84, 85, 86, 88, 92] * 5  # five draws, though there is one plan
    assert set(scored) == {b"(36, 32)"}
    assert [row[1] for row in table.rows] == [0.0, 0.0, 1.0, 2.0, 4.0, 8.0]
    assert table.rows[0][4] == 0.0
    assert float(table.rows[-1][6] or 0) < float(table.rows[0][6] or 0)  # the threshold suffers


def test_contamination_with_too_few_images_says_so() -> None:
    one = category()
    rows = np.concatenate([np.arange(20), np.arange(GOOD, GOOD + BAD)])
    samples = tuple(one.data.samples[row] for row in rows)
    small = replace(one, data=Dataset(one.data.root, samples), features=[level[rows] for level in one.features])
    table = contamination_table(small, plans(small.data, Protocol.SPLIT), SPEC, OPTIONS)
    assert table.rows == []
    assert "too few" in table.note


# --- categories ------------------------------------------------------------------------------------------------------
def test_mean_and_standard_error_over_categories() -> None:
    tables = {
        name: ResultTable("t", "T", ("level", "AUROC", "AUROC, low", "word"), [["a", value, 0.1, "x"]])
        for name, value in (("one", 0.8), ("two", 0.9), ("three", 0.7))
    }
    mean = over_categories(tables)
    assert mean is not None
    assert mean.columns == ("level", "AUROC", "AUROC, ± s.e.")
    assert mean.rows[0][1] == pytest.approx(0.8)
    assert mean.rows[0][2] == pytest.approx(0.1 / np.sqrt(3))
    assert over_categories({"one": tables["one"]}) is None
    other = ResultTable("t", "T", ("level", "AUROC"), [["b", 0.5]])
    assert over_categories({"one": tables["one"], "other": other}) is None


def test_numbers_for_people() -> None:
    assert [shown(cell) for cell in (None, "x", 1234, 0.91234, 5.7e-7, 512.34, 0.0, -0.00098)] == [
        "–",
        "x",
        "1,234",
        "0.9123",
        "5.7e-07",
        "512.3",
        "0.0000",
        "-0.0010",
    ]


def test_fits_are_those_of_a_model() -> None:
    one = category()
    plan = plans(one.data, Protocol.SPLIT)[0]
    run = run_plan(one, plan, LEVELS, OPTIONS)
    gaussians = fit_gaussians(fit_moments([level[plan.train] for level in one.features]), LEVELS, OPTIONS)
    want = gaussians[2].mahalanobis(one.features[2][plan.normal])
    np.testing.assert_allclose(run.normal[:, 2], want, rtol=1e-12)
    assert run.fitted is None
