"""What a stated false-positive rate comes to on images that neither the fit nor the working point has seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.calibration import Method, clopper_pearson
from gaussline.worker.learning.category import Category
from gaussline.worker.learning.fit import FitOptions, fit_rows
from gaussline.worker.learning.protocol import Plan
from gaussline.worker.learning.result_table import Cell, ResultTable
from gaussline.worker.learning.working_point import calibration_frames_needed, working_point

RATES = (0.01, 0.02, 0.05)


def rate_table(
    category: Category,
    plans: Sequence[Plan],
    levels: Sequence[str],
    options: FitOptions,
    progress: Callable[[int], None] = lambda done: None,
) -> ResultTable:
    """Stated beside realised rates, as `gaussline fit` sets a working point: a share of the training images calibrates.

    A rate that the calibration images are too few for has no numbers; the note says how many it needs.
    """
    method = Method.ROBUST if options.robust else Method.CONFORMAL
    held = options.held(min(plan.train.size for plan in plans))
    needed = {rate: calibration_frames_needed(method, rate) for rate in RATES}
    found: dict[float, list[tuple[int, int, float]]] = {rate: [] for rate in RATES if needed[rate] <= held}
    try:
        for plan in plans:
            if found:
                _measure(category, plan, levels, options, method, found)
            progress(1)
    except FitError as error:
        return ResultTable("rates", TITLE, COLUMNS, [], f"Not measured: {error}.")
    rows: list[list[Cell]] = []
    for rate in RATES:
        if rate not in found:
            rows.append([f"{rate:.0%}", None, None, None, None])
            continue
        hits, trials, share = (float(value) for value in np.mean(found[rate], axis=0))
        rows.append([f"{rate:.0%}", hits / trials, *clopper_pearson(round(hits), round(trials)), share])
    note = (
        f"Mean over runs ({len(plans)}). {held} of the training images of a run calibrate ({method.value}), the others "
        "are fitted on. In brackets the 95% interval (Clopper–Pearson) of one run's normal images: runs share images, "
        "so more runs do not narrow it."
    )
    for rate in RATES:
        if rate not in found:
            note += (
                f" {rate:.0%} cannot be held: it needs {needed[rate]} calibration images, of which there are {held}."
            )
    return ResultTable("rates", TITLE, COLUMNS, rows, note)


TITLE = "Stated and realised false-positive rates"
COLUMNS = ("stated FPR", "realised FPR", "realised FPR, low", "realised FPR, high", "defects found")


def _measure(
    category: Category,
    plan: Plan,
    levels: Sequence[str],
    options: FitOptions,
    method: Method,
    found: dict[float, list[tuple[int, int, float]]],
) -> None:
    """One run: failed normal images, normal images, and the share of defective ones that fail, at every rate."""
    own = replace(options, seed=plan.seed)
    order = plan.train[np.random.default_rng(plan.seed).permutation(plan.train.size)]
    held = own.held(order.size)
    fitted = fit_rows(category.features, order[held:], levels, own, category.copies)
    calibration, normal, defective = (
        fitted.combination.combine(fitted.distances(category.features, rows))
        for rows in (order[:held], plan.normal, plan.defective)
    )
    for rate, runs in found.items():
        point = working_point(method, rate, calibration, fitted.gaussians, fitted.combination, seed=plan.seed)
        runs.append((int(point.fails(normal).sum()), normal.size, float(point.fails(defective).mean())))
