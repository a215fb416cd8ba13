"""What unnoticed defects among the training images do: to the ranking, and to the stated false-positive rate.

Our own reconstruction: the authors published no code for it. A share of the defective images, stratified by type, moves
into the training images unlabelled, out of the test set; what may move at the highest share is out of the test set at
every share, so that all rows are measured on the same images. The moved images fall on training and calibration alike,
as they would in a folder that nobody has cleaned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gaussline.worker.contract.spec import BackboneSpec
from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.metrics import auroc
from gaussline.worker.learning.category import Category
from gaussline.worker.learning.fit import FitOptions, fit_model
from gaussline.worker.learning.protocol import Plan
from gaussline.worker.learning.result_table import Cell, ResultTable

Rows = NDArray[np.intp]
SHARES = (0.0, 0.01, 0.02, 0.05, 0.10, 0.20)
RATE = 0.05
FEWEST_SEEDS = 5


def stratified_order(rows: Rows, kinds: Sequence[str], rng: np.random.Generator) -> Rows:
    """Rows in an order whose every beginning holds the kinds in about their shares: shuffled within each kind."""
    kind = np.asarray(kinds)
    place = np.empty(rows.size)
    for name in np.unique(kind):
        own = np.flatnonzero(kind == name)
        # Each of m rows of a kind stands somewhere in its own m-th part of the order.
        place[rng.permutation(own)] = (np.arange(own.size) + rng.random(own.size)) / own.size
    return rows[np.argsort(place, kind="stable")]


def contamination_table(
    category: Category,
    plans: Sequence[Plan],
    spec: BackboneSpec,
    options: FitOptions,
    progress: Callable[[int], None] = lambda done: None,
) -> ResultTable:
    """AUROC, realised false-positive rate and true-positive rate at a stated 5 %, a share of moved defects.

    At least five draws: plans are used again with other seeds where there are fewer.
    """
    draws = [(plan, plan.seed + len(plans) * turn) for turn in range(-(-FEWEST_SEEDS // len(plans))) for plan in plans]
    own = replace(options, rate=RATE)
    measured: dict[float, list[tuple[float, ...]]] = {share: [] for share in SHARES}
    try:
        for number, (plan, seed) in enumerate(draws):
            rng = np.random.default_rng([seed, number])
            kinds = [category.data.samples[row].defect for row in plan.defective]
            order = stratified_order(plan.defective, kinds, rng)
            count = {share: round(share * order.size) for share in SHARES}
            stays = order[max(count.values()) :]
            for share in SHARES:
                train = np.concatenate([plan.train, order[: count[share]]])
                model = fit_model([x[train] for x in category.features], spec, replace(own, seed=seed))
                normal = model.scores([x[plan.normal] for x in category.features])
                defective = model.scores([x[stays] for x in category.features])
                point = model.working_point
                measured[share].append(
                    (
                        count[share],
                        count[share] / train.size,
                        auroc(normal, defective),
                        float(point.fails(normal).mean()),
                        float(point.fails(defective).mean()),
                    )
                )
                progress(1)
    except FitError as error:
        return ResultTable("contamination", TITLE, COLUMNS, [], f"Not measured: {error}.")
    clean = float(np.mean([one[2] for one in measured[0.0]]))
    rows: list[list[Cell]] = []
    for share, values in measured.items():
        moved, part, area, fpr, tpr = (float(value) for value in np.mean(values, axis=0))
        rows.append([f"{share:.0%} of the defects", round(moved, 1), part, area, area - clean, fpr, tpr])
    return ResultTable(
        "contamination",
        TITLE,
        COLUMNS,
        rows,
        f"Mean over {len(draws)} draws; our own reconstruction. Moved images fall on training and calibration alike; "
        f"the working point is {own.method.value} at a stated rate of {RATE:.0%}.",
    )


def steps(plans: int) -> int:
    """How often `progress` will be told."""
    return len(SHARES) * plans * -(-FEWEST_SEEDS // plans)


TITLE = "Unnoticed defects among the training images"
COLUMNS = (
    "moved into training",
    "images moved",
    "share of training",
    "AUROC",
    "AUROC over the clean fit's",
    "realised FPR at 5 %",
    "TPR at 5 %",
)
