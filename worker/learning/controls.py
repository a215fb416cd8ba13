"""The paper's tables: simpler distances, principal components, combinations of levels, and its threshold.

Every table fits on the same rows and augmented copies, and scores the same images, as the evaluation itself, so that
they can be compared cell by cell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from gaussline.worker.contract.model import groups_of
from gaussline.worker.contract.regions import level_names
from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.bootstrap import STATISTICS, Scored, statistics
from gaussline.worker.gaussian.chi_squared import chi_squared, sigma_rate
from gaussline.worker.gaussian.combination import Combination, Rule
from gaussline.worker.gaussian.covariance import Estimator
from gaussline.worker.gaussian.density import Gaussian, Projection
from gaussline.worker.gaussian.metrics import auroc
from gaussline.worker.gaussian.moments import Moments
from gaussline.worker.learning.category import Category
from gaussline.worker.learning.evaluation import HEADERS, run_plan
from gaussline.worker.learning.fit import FitOptions, fit_gaussians, fit_moments, rows_and_copies, trusted_rows
from gaussline.worker.learning.one_class_svm import svm_scores
from gaussline.worker.learning.protocol import Plan
from gaussline.worker.learning.result_table import Cell, ResultTable

Array = NDArray[np.float64]
Progress = Callable[[int], None]
SIGMAS = (1, 2, 3, 4, 5)
PCA_VARIANCES = (0.95, 0.99)
NPCA_VARIANCES = (0.99, 0.999, 0.9999)
ON = {False: "as they are", True: "and their augmented copies, which are not counted as images"}


class Extra(StrEnum):
    """Tables beyond the levels."""

    COMBINATIONS = "combinations"
    CONTROLS = "controls"
    COMPONENTS = "components"
    SIGMA = "sigma"
    CONTAMINATION = "contamination"


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What the tables share of one plan: moments are computed once.

    Attributes:
        rows: those of the plan's training rows that the fit takes.
    """

    plan: Plan
    rows: NDArray[np.intp]
    moments: tuple[Moments, ...]


def prepare(category: Category, plans: Sequence[Plan], levels: Sequence[str], options: FitOptions) -> list[Prepared]:
    """Moments of what each plan is fitted on. Raises FitError."""
    made = []
    for plan in plans:
        own = replace(options, seed=plan.seed)
        rows = trusted_rows(category.features, plan.train, levels, own, category.copies)
        made.append(Prepared(plan, rows, fit_moments(rows_and_copies(category.features, rows, category.copies))))
    return made


def control_table(
    category: Category, prepared: Sequence[Prepared], levels: Sequence[str], options: FitOptions, progress: Progress
) -> ResultTable:
    """AUROC of L2, standardised Euclidean and Mahalanobis distances, and of a one-class SVM, a level and summed."""
    rows: list[list[Cell]] = []
    for name, projection in (("L2", "l2"), ("SED", "standardised"), ("Mahalanobis", "none")):
        own = replace(options, projection=Projection(projection))
        rows.append([name, *_areas(category, prepared, levels, own)[0]])
        progress(1)
    note = (
        "Mean over runs; levels added up by their plain sum. SED: Euclidean distance of standardised features; "
        "channels that do not vary over the training images are left out of it. "
    )
    scores = [
        svm_scores(rows_and_copies(category.features, one.rows, category.copies), category.features, one.plan)
        for one in prepared
    ]
    if scores[0] is None:
        note += "One-class SVM: scikit-learn is not installed."
    else:
        whole = Combination(groups=groups_of(levels))
        pairs = [(whole.by_level(pair[0]), whole.by_level(pair[1])) for pair in scores if pair is not None]
        rows.append(["one-class SVM", *_mean_areas(pairs)])
        note += "One-class SVM: radial basis functions, gamma by scale, nu 0.5; the sum is of its scores."
    progress(1)
    columns = ("score", *level_names(levels), "sum")
    return ResultTable("controls", "Simpler scores as controls: AUROC", columns, rows, note)


def component_table(
    category: Category, prepared: Sequence[Prepared], levels: Sequence[str], options: FitOptions, progress: Progress
) -> ResultTable:
    """AUROC with principal components of high (PCA) and of low variance (NPCA), and how many directions they keep."""
    rows: list[list[Cell]] = []
    variants = [(f"PCA {v:g}", Projection.PCA, v) for v in PCA_VARIANCES]
    variants += [(f"NPCA {v:g}", Projection.NPCA, v) for v in NPCA_VARIANCES]
    variants.append(("all directions", Projection.NONE, options.variance))
    for name, projection, variance in variants:
        own = replace(options, projection=projection, variance=variance)
        try:
            areas, kept = _areas(category, prepared, levels, own)
            rows.append([name, *areas, kept])
        except FitError:
            rows.append([name, *[None] * (len(level_names(levels)) + 2)])
        progress(1)
    return ResultTable(
        "components",
        "Principal components: AUROC",
        ("directions", *level_names(levels), "sum", "directions kept"),
        rows,
        "PCA keeps up to and including the component that crosses the share of variance, NPCA from just before it on; "
        "plain covariance on what is kept. All directions: the evaluation's own estimator.",
    )


def combination_table(
    category: Category, plans: Sequence[Plan], levels: Sequence[str], options: FitOptions, progress: Progress
) -> ResultTable:
    """All statistics of every rule over all levels, and of the sum without each level in turn."""
    found: dict[str, list[Scored]] = {}
    names = level_names(levels)
    for plan in plans:
        run = run_plan(category, plan, levels, replace(options, rule=Rule.STANDARDISED))
        columns = {
            "sum": (run.normal.sum(axis=1), run.defective.sum(axis=1)),
            "mean": (run.normal.mean(axis=1), run.defective.mean(axis=1)),
            "maximum": (run.normal.max(axis=1), run.defective.max(axis=1)),
            "standardised": (run.combined_normal, run.combined_defective),
        }
        for index, level in enumerate(names if len(names) > 1 else ()):
            rest = np.arange(len(names)) != index
            columns[f"sum without {level}"] = (run.normal[:, rest].sum(axis=1), run.defective[:, rest].sum(axis=1))
        for name, (normal, defective) in columns.items():
            found.setdefault(name, []).append(Scored(normal, defective, plan.normal, plan.defective))
        progress(1)
    measured = {name: statistics(scored) for name, scored in found.items()}
    rows: list[list[Cell]] = [
        [name, *(one[s] for s in STATISTICS), one["auroc"] - measured["sum"]["auroc"]] for name, one in measured.items()
    ]
    return ResultTable(
        "combinations",
        "Combinations of levels",
        ("combination", *(HEADERS[s] for s in STATISTICS), "AUROC over the sum's"),
        rows,
        "The paper adds up plain distances; the mean ranks alike. Standardised: each distance in units of the spread "
        "of normal images that the fit has not seen.",
    )


def sigma_table(
    category: Category, prepared: Sequence[Prepared], levels: Sequence[str], options: FitOptions, progress: Progress
) -> ResultTable:
    """The published chi-squared threshold at 1 to 5 σ: stated and realised false positives, and true positives.

    Of whole levels alone: the farthest of several regions follows no such law.
    """
    whole = set(level_names(levels))
    rates: dict[tuple[str, int], list[tuple[float, float]]] = {}
    warned: dict[tuple[str, int], bool] = {}
    for one in prepared:
        gaussians = fit_gaussians(one.moments, levels, replace(options, projection=Projection.NONE))
        for level, gaussian, x in zip(levels, gaussians, category.features, strict=True):
            if level not in whole:
                continue
            normal, defective = gaussian.mahalanobis(x[one.plan.normal]), gaussian.mahalanobis(x[one.plan.defective])
            for sigma in SIGMAS:
                point = chi_squared(gaussian, sigma_rate(sigma), copies=len(category.copies))
                pair = (float((normal > point.threshold).mean()), float((defective > point.threshold).mean()))
                rates.setdefault((level, sigma), []).append(pair)
                warned[level, sigma] = warned.get((level, sigma), False) or point.warning is not None
        progress(1)
    rows: list[list[Cell]] = []
    for (level, sigma), pairs in rates.items():
        fpr, tpr = np.mean(pairs, axis=0)
        told = "not with so few images" if warned[level, sigma] else "may hold"
        rows.append([f"{level} at {sigma} σ", sigma_rate(sigma), float(fpr), float(tpr), told])
    return ResultTable(
        "sigma",
        "The published threshold",
        ("level and σ", "stated FPR", "realised FPR", "TPR", "can the law hold"),
        rows,
        "Chi-squared with as many degrees of freedom as features, for single levels. The paper fits it on 100 "
        f"augmented passes; here it stands on the training images {ON[bool(category.copies)]}. For comparison only: "
        "models calibrate on images that the fit has not seen. Levels that are cut into regions (--grid) have no such "
        "law, and no row.",
    )


def _areas(
    category: Category, prepared: Sequence[Prepared], levels: Sequence[str], options: FitOptions
) -> tuple[list[Cell], int]:
    """Mean AUROC a level and of the sum, and the directions kept in all levels."""
    pairs = []
    kept = 0
    for one in prepared:
        if options.projection is Projection.STANDARDISED:
            gaussians = tuple(_standardised(moments) for moments in one.moments)
        else:
            gaussians = fit_gaussians(one.moments, levels, options)
        kept = sum(gaussian.rank for gaussian in gaussians)
        whole = Combination(groups=groups_of(levels))
        normal = whole.by_level(_distances(gaussians, category, one.plan.normal))
        pairs.append((normal, whole.by_level(_distances(gaussians, category, one.plan.defective))))
    return _mean_areas(pairs), kept


def _standardised(moments: Moments) -> Gaussian:
    """Unbiased standard deviations; a channel without variance has no say, where a model would refuse it."""
    n = moments.effective_size
    variance = np.diag(moments.scatter) / moments.weight * (n / (n - 1.0))
    varies = variance > 0.0
    scale = np.divide(1.0, np.sqrt(variance), out=np.zeros_like(variance), where=varies)
    condition = float(variance[varies].max() / variance[varies].min())
    projection = Projection.STANDARDISED.value
    whitening = np.diag(scale)[varies]
    return Gaussian(moments.mean.copy(), whitening, n, 0.0, condition, Estimator.EMPIRICAL.value, projection)


def _mean_areas(pairs: Sequence[tuple[Array, Array]]) -> list[Cell]:
    each = [
        [*(auroc(n[:, i], d[:, i]) for i in range(n.shape[1])), auroc(n.sum(axis=1), d.sum(axis=1))] for n, d in pairs
    ]
    return [float(value) for value in np.mean(each, axis=0)]


def _distances(gaussians: Sequence[Gaussian], category: Category, rows: NDArray[np.intp]) -> Array:
    pairs = zip(gaussians, category.features, strict=True)
    return np.stack([gaussian.mahalanobis(level[rows]) for gaussian, level in pairs], axis=1)
