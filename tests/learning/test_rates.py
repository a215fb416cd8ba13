"""Stated beside realised rates: what `gaussline fit` would have set, held against images that it has not seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gaussline.worker.gaussian.calibration import clopper_pearson
from gaussline.worker.learning.fit import FitOptions, fit_model
from gaussline.worker.learning.protocol import Protocol, plans
from gaussline.worker.learning.rates import rate_table
from tests.learning.synthetic import SPEC
from tests.learning.test_evaluation import category

OPTIONS = FitOptions()


def test_rates_are_those_of_the_model_that_a_fit_would_have_made() -> None:
    one = category()
    made = plans(one.data, Protocol.SPLIT, seeds=(0, 1, 2))
    told: list[int] = []
    table = rate_table(one, made, SPEC.levels, OPTIONS, told.append)
    assert sum(told) == len(made)
    row = table.row("5%")
    failed, found = [], []
    for plan in made:
        model = fit_model([x[plan.train] for x in one.features], SPEC, replace(OPTIONS, rate=0.05, seed=plan.seed))
        failed.append(model.judge([x[plan.normal] for x in one.features]).failed)
        found.append(model.judge([x[plan.defective] for x in one.features]).failed.mean())
    assert row["realised FPR"] == pytest.approx(np.mean(failed))
    assert row["defects found"] == pytest.approx(np.mean(found))
    hits = round(float(np.mean([one.sum() for one in failed])))
    assert (row["realised FPR, low"], row["realised FPR, high"]) == clopper_pearson(hits, failed[0].size)


def test_neither_fit_nor_threshold_sees_what_it_is_held_against() -> None:
    """By the numbers: every scored image is spoilt beyond recognition, so that all must fail, and none may teach."""
    one = category()
    plan = plans(one.data, Protocol.SPLIT)[0]
    for level in one.features:
        level[np.concatenate([plan.normal, plan.defective])] += 1000.0
    table = rate_table(one, [plan], SPEC.levels, OPTIONS)
    assert [table.row("5%")[name] for name in ("realised FPR", "defects found")] == [1.0, 1.0]


def test_a_rate_that_cannot_be_held_is_said_with_the_number_needed() -> None:
    one = category()  # 84 training images, of which 25 calibrate: one in twenty can be held, one in fifty cannot
    table = rate_table(one, plans(one.data, Protocol.SPLIT), SPEC.levels, OPTIONS)
    assert [row[0] for row in table.rows] == ["1%", "2%", "5%"]
    assert table.row("2%")["realised FPR"] is None
    assert "2% cannot be held: it needs 49 calibration images, of which there are 25" in table.note
    assert "1% cannot be held: it needs 99" in table.note
    robust = rate_table(one, plans(one.data, Protocol.SPLIT), SPEC.levels, replace(OPTIONS, robust=True))
    assert all(row[1] is None for row in robust.rows)
    assert "needs 40" in robust.note
