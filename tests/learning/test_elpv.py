"""Real images of solar cells under real weights: the areas that an independent computation gave, over ten seeds.

One pass over all images through the code that `gaussline evaluate` runs, from files to areas under the ROC curve; the
cache it fills is what the tests of the second run read.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from gaussline.worker.gaussian.calibration import calibrate, clopper_pearson
from gaussline.worker.gaussian.combination import Rule
from gaussline.worker.learning.category import Category, Extraction, read_category
from gaussline.worker.learning.content_store import ContentStore
from gaussline.worker.learning.controls import control_table, prepare
from gaussline.worker.learning.evaluation import Run, level_table, run_all
from gaussline.worker.learning.feature_cache import FeatureCache
from gaussline.worker.learning.fit import FitOptions, fit_model, fit_rows
from gaussline.worker.learning.pipeline import BackboneOptions
from gaussline.worker.learning.protocol import Protocol, plans
from gaussline.worker.learning.result_table import ResultTable
from tests.support.skips import data, needs_data

pytestmark = [needs_data("elpv_mono/good", "weights/mobilenet_v2_features.pth"), pytest.mark.timeout(600)]

REFERENCE = {
    "features.1": 0.676,
    "features.3": 0.881,
    "features.6": 0.886,
    "features.10": 0.910,
    "features.13": 0.915,
    "features.16": 0.920,
    "features.17": 0.930,
    "features.18": 0.926,
}
SUM = 0.925
TRAIN = 411
SEEDS = tuple(range(10))
PAPER = FitOptions(rule=Rule.SUM)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    return FeatureCache(ContentStore(tmp_path_factory.mktemp("features"), 2**30))


def extraction() -> Extraction:
    weights = data("weights/mobilenet_v2_features.pth")
    return Extraction(
        BackboneOptions(
            "mobilenet_v2", weights, levels=tuple(REFERENCE), device="cpu", memory_format="channels_last", batch_size=16
        )
    )


@pytest.fixture(scope="module")
def cells(cache: FeatureCache) -> Category:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    category = read_category(data("elpv_mono"), extraction(), cache, threads=1)
    torch.set_num_threads(before)
    return category


@pytest.fixture(scope="module")
def runs(cells: Category) -> list[Run]:
    share = TRAIN / len(cells.data.normal)
    planned = plans(cells.data, Protocol.SPLIT, train_share=share, seeds=SEEDS)
    return run_all(cells, planned, tuple(REFERENCE), PAPER)


@pytest.fixture(scope="module")
def table(runs: list[Run]) -> ResultTable:
    return level_table(runs, tuple(REFERENCE), Rule.SUM, draws=100, confidence=0.95, seed=0)


def test_the_data_are_the_reference_data(cells: Category, runs: list[Run]) -> None:
    assert (len(cells.data.normal), len(cells.data.defective)) == (588, 313)
    assert len(runs) == 10
    sizes = {(run.plan.train.size, run.plan.normal.size, run.plan.defective.size) for run in runs}
    assert sizes == {(TRAIN, 177, 313)}
    assert cells.warnings == ()


def test_the_mean_over_ten_seeds_is_the_independent_reference(table: ResultTable) -> None:
    for level, expected in REFERENCE.items():
        assert table.row(level)["AUROC"] == pytest.approx(expected, abs=0.02), level
    assert table.row("sum")["AUROC"] == pytest.approx(SUM, abs=0.015)


def test_the_mean_is_nearer_than_a_single_split_allows(table: ResultTable) -> None:
    for level, expected in {**REFERENCE, "sum": SUM}.items():
        row = table.row(level)
        # The reference is one split: it lies within three spreads of splits of the mean.
        assert abs(float(row["AUROC"] or 0) - expected) < 3 * float(row["AUROC, spread over runs"] or 0), level
        assert float(row["AUROC, low"] or 0) < expected < float(row["AUROC, high"] or 0), level


def test_the_mahalanobis_distance_beats_the_simpler_controls(cells: Category, runs: list[Run]) -> None:
    prepared = prepare(cells, [run.plan for run in runs[:1]], tuple(REFERENCE), PAPER)
    table = control_table(cells, prepared, tuple(REFERENCE), PAPER, lambda done: None)
    sums = {str(row[0]): float(table.row(str(row[0]))["sum"] or 0) for row in table.rows}
    assert sums["Mahalanobis"] > max(sums["L2"], sums["SED"], sums["one-class SVM"]) + 0.05


def test_a_second_run_computes_no_feature(cells: Category, cache: FeatureCache) -> None:
    before = cache.hits
    again = extraction()
    category = read_category(data("elpv_mono"), again, cache)
    assert cache.hits - before == 901
    assert again.runtime is None  # the backbone was not even prepared
    for first, second in zip(cells.features, category.features, strict=True):
        np.testing.assert_array_equal(first, second)


def test_the_stated_rate_is_held_on_real_images(cells: Category) -> None:
    """Fit and calibrate on two thirds of the good cells, count failures among the rest; over all seeds together."""
    rows = cells.rows(lambda sample: sample.normal)
    spec = extraction().spec
    failed = total = 0
    calibrated = 0
    for seed in SEEDS[:5]:
        order = np.random.default_rng(seed).permutation(rows)
        train, rest = order[:392], order[392:]
        model = fit_model([x[train] for x in cells.features], spec, FitOptions(rate=0.05, seed=seed))
        fails = model.working_point.fails(model.scores([x[rest] for x in cells.features]))
        failed, total, calibrated = failed + int(fails.sum()), total + fails.size, model.working_point.scores.size
    # One draw of 118 calibration frames realises Beta(5, 114); five seeds share frames, so one draw's bound stands.
    low, high = stats.beta(5, 114).ppf([0.001, 0.999])
    assert calibrated == 118
    assert low <= failed / total <= high, clopper_pearson(failed, total)


# --- the law of split-conformal calibration, on real features --------------------------------------------------------
SPLITS, TRAINING, CALIBRATING = 200, 180, 199


@pytest.fixture(scope="module")
def splits(cells: Category) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Scores of calibration frames and of fresh ones over 200 random splits into three; two levels, to be quick."""
    rows = cells.rows(lambda sample: sample.normal)
    chosen = [tuple(REFERENCE).index(level) for level in ("features.6", "features.13")]
    features = [cells.features[index] for index in chosen]
    calibration, fresh = [], []
    for split in range(SPLITS):
        order = np.random.default_rng([split, 11]).permutation(rows)
        fitted = fit_rows(features, order[:TRAINING], ("features.6", "features.13"), PAPER)
        scores = fitted.combination.combine(fitted.distances(features, order[TRAINING:]))
        calibration.append(scores[:CALIBRATING])
        fresh.append(scores[CALIBRATING:])
    return calibration, fresh


@pytest.mark.parametrize("rate", [0.01, 0.02, 0.05])
def test_split_conformal_holds_its_rate_over_two_hundred_splits(
    splits: tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]], rate: float
) -> None:
    calibration, fresh = splits
    pairs = zip(calibration, fresh, strict=True)
    failed = np.array([int(calibrate(known, rate).fails(new).sum()) for known, new in pairs])
    number = fresh[0].size
    realised = failed / number
    assert realised.mean() <= rate + 3.0 * stats.sem(realised)
    assert realised.mean() >= rate - 4.0 * stats.sem(realised)  # nor is it idly strict: rate · (n + 1) is whole here
    # Of n + 1 places the k strictest fail: how many of m fresh frames do follows a beta-binomial law.
    k = round(rate * (CALIBRATING + 1))
    law = stats.betabinom(number, k, CALIBRATING + 1 - k)
    assert 0.7 < failed.var(ddof=1) / law.var() < 1.4
    spread = np.random.default_rng(0).random(SPLITS)
    places = law.cdf(failed - 1) + spread * law.pmf(failed)
    assert stats.kstest(places, "uniform").pvalue > 0.01
    # The binomial law, which forgets that the threshold itself is drawn, is far too narrow.
    assert failed.var(ddof=1) > 1.4 * stats.binom(number, rate).var()
