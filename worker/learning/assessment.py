"""A whole evaluation: categories read, runs fitted and scored, tables made, images chosen; one result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gaussline.worker.contract.spec import BackboneSpec
from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.combination import Rule
from gaussline.worker.learning import controls
from gaussline.worker.learning.augmentation import Augmentation
from gaussline.worker.learning.category import Category, Extraction, read_category
from gaussline.worker.learning.contamination import contamination_table
from gaussline.worker.learning.contamination import steps as contamination_steps
from gaussline.worker.learning.controls import Extra
from gaussline.worker.learning.evaluation import Run, defect_table, level_table, run_all
from gaussline.worker.learning.feature_cache import FeatureCache
from gaussline.worker.learning.fit import FitOptions
from gaussline.worker.learning.localisation import Explained, explained, masked, pixel_table, read_masks
from gaussline.worker.learning.protocol import PAPER_FOLDS, Plan, Protocol, leaks, plans
from gaussline.worker.learning.rates import rate_table
from gaussline.worker.learning.result_table import ResultTable, over_categories

SHOWN_EACH = 4
"""Images of each kind (missed, alarming, clear, calm) in a report."""


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """What to evaluate, and how.

    Attributes:
        seeds: of the divisions; `seed` of everything else that is drawn.
        augmentation: of the images that are fitted on.
        examples: make heat maps of the best and the worst images.
    """

    fit: FitOptions = field(default_factory=FitOptions)
    protocol: Protocol = Protocol.SPLIT
    folds: int = PAPER_FOLDS
    train_share: float = 0.7
    seeds: tuple[int, ...] = (0,)
    draws: int = 500
    confidence: float = 0.95
    seed: int = 0
    extra: frozenset[Extra] = frozenset()
    pixels: bool = True
    examples: bool = False
    threads: int = 2
    skip_bad: bool = False
    augmentation: Augmentation | None = None

    def __post_init__(self) -> None:
        """Raise FitError for numbers that make no sense: before minutes are spent on features."""
        for name, share in (("training share", self.train_share), ("confidence", self.confidence)):
            if not 0.0 < share < 1.0:
                raise FitError(f"{name} {share:g} is not between 0 and 1")
        if self.folds < 2 and self.protocol is not Protocol.SPLIT:
            raise FitError(f"{self.folds} folds are none: give at least 2")
        if self.draws < 1 or not self.seeds:
            raise FitError("an evaluation needs at least one bootstrap draw and one seed")

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "protocol": self.protocol.value,
            "folds": None if self.protocol is Protocol.SPLIT else self.folds,
            "train_share": self.train_share,
            "seeds": list(self.seeds),
            "estimator": self.fit.estimator.value,
            "projection": self.fit.projection.value,
            "variance": self.fit.variance,
            "rule": self.fit.rule.value,
            "robust": self.fit.robust,
            "augmentation": None if self.augmentation is None else self.augmentation.to_json(),
            "bootstrap_draws": self.draws,
            "confidence": self.confidence,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One image of a report. `group`: missed, alarming, clear or calm."""

    group: str
    score: float
    explained: Explained


@dataclass(frozen=True, slots=True, eq=False)
class Assessed:
    """One category, evaluated."""

    name: str
    category: Category
    runs: tuple[Run, ...]
    tables: tuple[ResultTable, ...]
    warnings: tuple[str, ...]
    examples: tuple[Example, ...] = ()

    def table(self, name: str) -> ResultTable:
        """A table by its name. Raises KeyError."""
        for table in self.tables:
            if table.name == name:
                return table
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        data = self.category.data
        return {
            "name": self.name,
            "normal_images": len(data.normal),
            "defective_images": len(data.defective),
            "skipped": [{"file": str(one.path), "why": one.why} for one in self.category.skipped],
            "warnings": list(self.warnings),
            "runs": [
                {
                    "seed": run.plan.seed,
                    "fold": run.plan.fold,
                    "train": int(run.plan.train.size),
                    "normal": int(run.plan.normal.size),
                    "defective": int(run.plan.defective.size),
                }
                for run in self.runs
            ],
            "tables": {table.name: table.to_dict() for table in self.tables},
        }


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        means: tables over all categories: mean ± standard error.
    """

    spec: BackboneSpec
    options: EvaluationOptions
    categories: tuple[Assessed, ...]
    means: tuple[ResultTable, ...]
    runtime: str | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "v": 1,
            "backbone": self.spec.to_dict(),
            "runtime": self.runtime,
            "options": self.options.to_dict(),
            "categories": [category.to_dict() for category in self.categories],
            "means": {table.name: table.to_dict() for table in self.means},
        }


class Assessor:
    """Evaluates folders, one after the other.

    Args:
        stage: told what begins, and of how many steps it is.
        progress: told how many steps were done.
    """

    def __init__(
        self,
        extraction: Extraction,
        cache: FeatureCache | None,
        options: EvaluationOptions,
        *,
        stage: Callable[[str, int], None] = lambda name, total: None,
        progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        self._extraction = extraction
        self._cache = cache
        self._store = None if cache is None else cache.store
        self._options = options
        self._stage = stage
        self._progress = progress

    def assess(self, folders: Sequence[Path]) -> Evaluation:
        """Evaluate all folders. Raises SourceError, FitError."""
        done = []
        for folder in folders:
            try:
                done.append(self._assess(folder))
            except FitError as error:
                raise FitError(f"{folder.resolve().name}: {error}") from None
        means = []
        for table in done[0].tables:
            same = {one.name: own for one in done for own in one.tables if own.name == table.name}
            mean = over_categories(same) if len(same) == len(done) else None
            if mean is not None:
                means.append(mean)
        return Evaluation(self._extraction.spec, self._options, tuple(done), tuple(means), self._extraction.runtime)

    def _assess(self, folder: Path) -> Assessed:
        ask, spec = self._options, self._extraction.spec
        name = folder.resolve().name
        category = read_category(
            folder,
            self._extraction,
            self._cache,
            skip_bad=ask.skip_bad,
            threads=ask.threads,
            augmentation=ask.augmentation,
            planned=lambda images: self._stage(f"{name}: features", images),
            progress=self._progress,
        )
        masks = read_masks(category) if ask.pixels else {}
        planned = plans(category.data, ask.protocol, train_share=ask.train_share, folds=ask.folds, seeds=ask.seeds)
        self._stage(f"{name}: fits", len(planned))
        runs = run_all(category, planned, spec.levels, ask.fit, self._progress)
        tables = [
            level_table(runs, spec.levels, ask.fit.rule, draws=ask.draws, confidence=ask.confidence, seed=ask.seed),
            defect_table(category, runs, ask.fit.rule),
            self._rates(category, planned),
            *self._extra(category, planned),
        ]
        if masks:
            self._stage(f"{name}: heat maps", masked(runs[0], category, masks))
            tables.append(
                pixel_table(
                    category,
                    runs[0],
                    self._extraction,
                    masks,
                    seed=ask.seed,
                    store=self._store,
                    threads=ask.threads,
                    progress=self._progress,
                )
            )
        examples = self._examples(category, runs[0]) if ask.examples else ()
        return Assessed(
            name, category, tuple(runs), tuple(tables), self._warnings(category, planned, len(masks)), examples
        )

    def _warnings(self, category: Category, planned: Sequence[Plan], masks: int) -> tuple[str, ...]:
        told = list(category.warnings)
        if masks and masks < len(category.data.defective):
            without = len(category.data.defective) - masks
            told.append(f"{without} of {without + masks} defective images have no mask: pixel metrics leave them out")
        if self._options.protocol is Protocol.SPLIT and len(planned) < len(self._options.seeds):
            told.append(
                f"the folder has its own split, so {len(self._options.seeds)} seeds divide it into the same one run; "
                "--protocol folds divides its normal images anew"
            )
        leaked = max(leaks(plan, category.digests) for plan in planned)
        if leaked:
            told.append(
                f"leak: up to {leaked} scored images have the same bytes as a training image; remove the copies, the "
                "numbers are too good"
            )
        if self._extraction.spec.random_weights:
            told.append("the backbone has random weights: these numbers mean nothing")
        return tuple(told)

    def _rates(self, category: Category, planned: Sequence[Plan]) -> ResultTable:
        self._stage(f"{category.name}: stated rates", len(planned))
        return rate_table(category, planned, self._extraction.spec.levels, self._options.fit, self._progress)

    def _extra(self, category: Category, planned: Sequence[Plan]) -> list[ResultTable]:
        ask, levels = self._options, self._extraction.spec.levels
        asked = [extra for extra in Extra if extra in ask.extra]
        tables = []
        shared = {Extra.CONTROLS, Extra.COMPONENTS, Extra.SIGMA} & ask.extra
        prepared = controls.prepare(category, planned, levels, ask.fit) if shared else []
        for extra in asked:
            name = f"{category.name}: {extra.value}"
            if extra is Extra.COMBINATIONS:
                self._stage(name, len(planned))
                table = controls.combination_table(category, planned, levels, ask.fit, self._progress)
            elif extra is Extra.CONTROLS:
                self._stage(name, 4)
                table = controls.control_table(category, prepared, levels, ask.fit, self._progress)
            elif extra is Extra.COMPONENTS:
                self._stage(name, 6)
                table = controls.component_table(category, prepared, levels, ask.fit, self._progress)
            elif extra is Extra.SIGMA:
                self._stage(name, len(prepared))
                table = controls.sigma_table(category, prepared, levels, ask.fit, self._progress)
            else:
                self._stage(name, contamination_steps(len(planned)))
                spec = self._extraction.spec
                table = contamination_table(category, planned, spec, ask.fit, self._progress)
            tables.append(table)
        return tables

    def _examples(self, category: Category, run: Run) -> tuple[Example, ...]:
        """The images that went wrong the most, and those that went right the most, with their maps."""
        normal, defective = np.argsort(run.combined_normal), np.argsort(run.combined_defective)
        chosen: list[tuple[str, float, int]] = []
        for group, rows, scores, order in (
            ("missed", run.plan.defective, run.combined_defective, defective),
            ("alarming", run.plan.normal, run.combined_normal, normal[::-1]),
            ("clear", run.plan.defective, run.combined_defective, defective[::-1]),
            ("calm", run.plan.normal, run.combined_normal, normal),
        ):
            for index in order[:SHOWN_EACH]:
                chosen.append((group, float(scores[index]), int(rows[index])))
        self._stage(f"{category.name}: examples", len(chosen))
        made = []
        rows = np.array([row for _, _, row in chosen], np.intp)
        shown = explained(category, rows, self._extraction, run, store=self._store, threads=self._options.threads)
        for (group, score, _), one in zip(chosen, shown, strict=True):
            made.append(Example(group, score, one))
            self._progress(1)
        return tuple(made)


def headline(assessed: Assessed, rule: Rule) -> dict[str, Any]:
    """The row of the fit's own combination in a category's table of levels."""
    return dict(assessed.table("levels").row(rule.value))
