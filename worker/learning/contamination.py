"""What unnoticed defects among the training images do: to the ranking, and to the stated false-positive rate.

Our own reconstruction: the authors published no code for it. A share of the defective images, stratified by type, moves
into the training images unlabelled, out of the test set; what may move at the highest share is out of the test set at
every share, so that all rows are measured on the same images. The moved images fall on training and calibration alike,
as they would in a folder that nobody has cleaned. Each share is measured twice: as the fit is asked for, and robustly
(`robust_fit`, and a working point from the body of the scores, `gaussian.robust`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gaussline.worker.contract.spec import BackboneSpec
from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.calibration import Method
from gaussline.worker.gaussian.metrics import auroc
from gaussline.worker.learning.category import Category
from gaussline.worker.learning.fit import FitOptions, fit_model
from gaussline.worker.learning.protocol import Plan
from gaussline.worker.learning.result_table import Cell, ResultTable
from gaussline.worker.learning.working_point import calibration_frames_needed

Rows = NDArray[np.intp]
SHARES = (0.0, 0.01, 0.02, 0.05, 0.10, 0.20)
RATE = 0.05
FEWEST_SEEDS = 5


@dataclass(frozen=True, slots=True)
class Measured:
    """One fit, on images that it has not seen.

    Attributes:
        fpr, tpr: realised, at the stated rate.
        interval: that the working point itself gives for its realised rate, where it gives one.
        left_out: training images that a robust fit did not trust.
    """

    auroc: float
    fpr: float
    tpr: float
    interval: tuple[float, float] | None
    left_out: int


@dataclass(frozen=True, slots=True)
class Contaminated:
    """One draw: the same fits without the moved defects (clean) and with them."""

    clean: Measured
    plain: Measured
    robust: Measured
    moved: int
    training: int


def stratified_order(rows: Rows, kinds: Sequence[str], rng: np.random.Generator) -> Rows:
    """Rows in an order whose every beginning holds the kinds in about their shares: shuffled within each kind."""
    kind = np.asarray(kinds)
    place = np.empty(rows.size)
    for name in np.unique(kind):
        own = np.flatnonzero(kind == name)
        # Each of m rows of a kind stands somewhere in its own m-th part of the order.
        place[rng.permutation(own)] = (np.arange(own.size) + rng.random(own.size)) / own.size
    return rows[np.argsort(place, kind="stable")]


def made_robust(options: FitOptions) -> FitOptions:
    """The same fit where nobody has cleaned the folder."""
    return replace(options, robust=True, method=Method.ROBUST)


def contaminated(
    category: Category, plan: Plan, spec: BackboneSpec, options: FitOptions, share: float, seed: int
) -> Contaminated:
    """One draw with a share of *all training images* defective. Raises FitError."""
    order = _order(category, plan, [seed])
    count = round(share / (1.0 - share) * plan.train.size)
    dirty, tested = np.concatenate([plan.train, order[:count]]), replace(plan, defective=order[count:])
    own = replace(options, seed=seed)
    return Contaminated(
        _measured(category, tested, plan.train, spec, own),
        _measured(category, tested, dirty, spec, own),
        _measured(category, tested, dirty, spec, made_robust(own)),
        count,
        dirty.size,
    )


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
    ways = [own, made_robust(own)]
    found: dict[float, list[tuple[float, ...]]] = {share: [] for share in SHARES}
    refused = ""
    if own.held(draws[0][0].train.size) < calibration_frames_needed(Method.ROBUST, RATE):
        refused = " Not measured robustly: the calibration frames are too few."
        ways = ways[:1]
    try:
        for number, (plan, seed) in enumerate(draws):
            order = _order(category, plan, [seed, number])
            count = {share: round(share * order.size) for share in SHARES}
            tested = replace(plan, defective=order[max(count.values()) :])
            for share in SHARES:
                train = np.concatenate([plan.train, order[: count[share]]])
                row: list[float] = [count[share], count[share] / train.size]
                for way in ways:
                    one = _measured(category, tested, train, spec, replace(way, seed=seed))
                    row += [one.auroc, one.fpr, one.tpr]
                found[share].append(tuple(row))
                progress(1)
    except FitError as error:
        return ResultTable("contamination", TITLE, COLUMNS, [], f"Not measured: {error}.")
    clean = float(np.mean([one[2] for one in found[0.0]]))
    rows: list[list[Cell]] = []
    for share, values in found.items():
        moved, part, *numbers = (float(value) for value in np.mean(values, axis=0))  # the same number every draw
        cells: list[Cell] = []
        for area, fpr, tpr in zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True):
            cells += [area, area - clean, fpr, tpr]
        cells += [None] * (8 - len(cells))
        rows.append([f"{share:.0%} of the defects", round(moved), part, *cells])
    return ResultTable(
        "contamination",
        TITLE,
        COLUMNS,
        rows,
        f"Mean over {len(draws)} draws; our own reconstruction. Moved images fall on training and calibration alike; "
        f"the working point is {own.method.value} at a stated rate of {RATE:.0%}. Robust: suspicious training images "
        f"are left out, and the threshold is read off a law of the body of the calibration scores.{refused}",
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
    "robust: AUROC",
    "robust: AUROC over the clean fit's",
    "robust: realised FPR at 5 %",
    "robust: TPR at 5 %",
)


def _order(category: Category, plan: Plan, seed: list[int]) -> Rows:
    kinds = [category.data.samples[row].defect for row in plan.defective]
    return stratified_order(plan.defective, kinds, np.random.default_rng(seed))


def _measured(category: Category, tested: Plan, train: Rows, spec: BackboneSpec, options: FitOptions) -> Measured:
    """Fit on rows, score the plan's others. The plan's own training rows are not looked at."""
    copies = [[x[train] for x in copy] for copy in category.copies]
    model = fit_model([x[train] for x in category.features], spec, options, copies=copies)
    normal, defective = ([x[rows] for x in category.features] for rows in (tested.normal, tested.defective))
    good, bad = model.scores(list(normal)), model.scores(list(defective))
    point = model.working_point
    return Measured(
        auroc(good, bad),
        float(point.fails(good).mean()),
        float(point.fails(bad).mean()),
        point.interval,
        int(model.info.get("left_out", 0)),
    )
