"""The engine of an evaluation: fit and score every run of a protocol, and measure every level and every combination."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gaussline.worker.contract.regions import level_names
from gaussline.worker.gaussian.bootstrap import STATISTICS, Scored, intervals, statistics
from gaussline.worker.gaussian.combination import Rule
from gaussline.worker.gaussian.metrics import auroc
from gaussline.worker.learning.category import Category
from gaussline.worker.learning.fit import FitOptions, Fitted, fit_rows
from gaussline.worker.learning.protocol import Plan
from gaussline.worker.learning.result_table import ResultTable

Array = NDArray[np.float64]
HEADERS = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "tpr_at_1": "TPR at 1 % FPR",
    "tpr_at_5": "TPR at 5 % FPR",
}


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One fit and what it scored.

    Attributes:
        normal, defective: (n, L) and (m, L) distances of the plan's rows; of a cut level, its farthest region's.
        combined_normal, combined_defective: (n,) and (m,) scores by the rule of the fit.
        fitted: what scored them; kept of a category's first run alone.
    """

    plan: Plan
    normal: Array
    defective: Array
    combined_normal: Array
    combined_defective: Array
    fitted: Fitted | None = None

    def column(self, index: int | None) -> Scored:
        """The scores of a level, or (None) of the paper's sum over levels."""
        normal = self.normal.sum(axis=1) if index is None else self.normal[:, index]
        defective = self.defective.sum(axis=1) if index is None else self.defective[:, index]
        return Scored(normal, defective, self.plan.normal, self.plan.defective)

    def combined(self) -> Scored:
        """The scores by the rule of the fit."""
        return Scored(self.combined_normal, self.combined_defective, self.plan.normal, self.plan.defective)


def run_plan(category: Category, plan: Plan, levels: Sequence[str], options: FitOptions, *, keep: bool = False) -> Run:
    """Fit on the plan's training rows alone, and score the others. Raises FitError naming the level."""
    fitted = fit_rows(category.features, plan.train, levels, replace(options, seed=plan.seed), category.copies)
    rule = fitted.combination
    normal = rule.by_level(fitted.distances(category.features, plan.normal))
    defective = rule.by_level(fitted.distances(category.features, plan.defective))
    return Run(
        plan,
        normal,
        defective,
        rule.combine_levels(normal),
        rule.combine_levels(defective),
        fitted if keep else None,
    )


def run_all(
    category: Category,
    plans: Sequence[Plan],
    levels: Sequence[str],
    options: FitOptions,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Run]:
    """All runs of a category, in order."""
    runs: list[Run] = []
    for plan in plans:
        runs.append(run_plan(category, plan, levels, options, keep=not runs))
        progress(1)
    return runs


def columns(runs: Sequence[Run], levels: Sequence[str], rule: Rule) -> dict[str, list[Scored]]:
    """Every level, the paper's sum, and the fit's own combination where it is another: name -> scores a run."""
    found = {name: [run.column(index) for run in runs] for index, name in enumerate(level_names(levels))}
    found[Rule.SUM.value] = [run.column(None) for run in runs]
    if rule is not Rule.SUM:
        found[rule.value] = [run.combined() for run in runs]
    return found


def level_table(
    runs: Sequence[Run], levels: Sequence[str], rule: Rule, *, draws: int, confidence: float, seed: int
) -> ResultTable:
    """All statistics of all columns, with their intervals and the spread over runs."""
    found = columns(runs, levels, rule)
    limits = intervals(found, np.random.default_rng(seed), draws=draws, confidence=confidence)
    header = ["level"]
    for name in STATISTICS:
        header += [HEADERS[name], f"{HEADERS[name]}, low", f"{HEADERS[name]}, high"]
    header.append("AUROC, spread over runs")
    note = (
        f"Mean over runs ({len(runs)}). In brackets the {confidence:.0%} interval: {draws} bootstrap draws of images, "
        "normal and defective ones apart, the same draw for all runs. Spread: standard deviation over runs."
    )
    if any(low == high for each in limits.values() for low, high in each.values()):
        note += " An interval without width says that the scores of these images are far apart, not that all are."
    rows: list[list[str | float | int | None]] = []
    for column, scored in found.items():
        means = statistics(scored)
        row: list[str | float | int | None] = [column]
        for name in STATISTICS:
            row += [means[name], *limits[column][name]]
        row.append(_spread(scored))
        rows.append(row)
    return ResultTable(
        "levels",
        "Every level, and levels combined",
        tuple(header),
        rows,
        note,
    )


def defect_table(category: Category, runs: Sequence[Run], rule: Rule) -> ResultTable:
    """AUROC and found shares of each defect type, by the fit's own combination."""
    rows: list[list[str | float | int | None]] = []
    for defect in category.data.defects:
        areas, scored = [], []
        for run in runs:
            own = np.array([category.data.samples[row].defect == defect for row in run.plan.defective])
            if own.any():
                all_of_it = run.combined()
                some = Scored(
                    all_of_it.normal, all_of_it.defective[own], all_of_it.normal_ids, all_of_it.defective_ids[own]
                )
                scored.append(some)
                areas.append(auroc(some.normal, some.defective))
        means = statistics(scored)
        count = sum(sample.defect == defect for sample in category.data.defective)
        rows.append([defect, count, float(np.mean(areas)), means["tpr_at_1"], means["tpr_at_5"]])
    return ResultTable(
        "defects",
        "Every defect type",
        ("defect", "images", HEADERS["auroc"], HEADERS["tpr_at_1"], HEADERS["tpr_at_5"]),
        rows,
        f"Against all normal test images; levels combined by {rule.value}.",
    )


def _spread(scored: Sequence[Scored]) -> float | None:
    if len(scored) < 2:
        return None
    return float(np.std([auroc(one.normal, one.defective) for one in scored], ddof=1))
