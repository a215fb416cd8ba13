"""From a folder to features and from features to a report: what `fit`, `evaluate` and the demo share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gaussline.worker.contract.limits import ImageLimits
from gaussline.worker.gaussian.combination import Rule
from gaussline.worker.gaussian.metrics import auroc, average_precision, bootstrap_auroc, tpr_at_fpr
from gaussline.worker.learning.dataset import Dataset, Sample
from gaussline.worker.learning.features import Features, extract_features
from gaussline.worker.learning.fit import FitOptions, fit_gaussians, fit_moments
from gaussline.worker.vision.backbones import load_backbone
from gaussline.worker.vision.features import FeatureExtractor
from gaussline.worker.vision.runtime import RuntimeChoice, choose_runtime
from gaussline.worker.vision.weights import WeightsSource

Array = NDArray[np.float64]
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class BackboneOptions:
    """Which backbone, with which weights, run how.

    Attributes:
        random_seed: of random weights; only where somebody asked for them and says so on every result.
    """

    name: str = "mobilenet_v2"
    weights: Path | None = None
    random_seed: int | None = None
    levels: tuple[str, ...] | None = None
    input_size: int | None = None
    numeric_mode: str = "float32"
    device: str = "auto"
    memory_format: str = "auto"
    compile: str = "off"
    batch_size: int | None = None
    threads: int | None = None

    def open(self) -> FeatureExtractor:
        """Load, measure and choose. Raises WeightsUnavailable, BackboneMismatch, NotFound, SettingsError."""
        source: WeightsSource | Path | None = self.weights
        if self.random_seed is not None:
            source = WeightsSource(random_seed=self.random_seed)
        backbone = load_backbone(
            self.name,
            source,
            levels=self.levels,
            input_size=None if self.input_size is None else (self.input_size, self.input_size),
            numeric_mode=self.numeric_mode,
        )
        runtime: RuntimeChoice = choose_runtime(
            backbone,
            device=self.device,
            memory_format=self.memory_format,
            compile=self.compile,
            batch_size=self.batch_size,
            threads=self.threads,
        )
        return FeatureExtractor(backbone, runtime)


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """Features of a list of samples, one float32 (n, d) array a level."""

    samples: tuple[Sample, ...]
    features: Features

    def take(self, rows: Sequence[int] | NDArray[np.intp]) -> Features:
        """The features of some rows."""
        index = np.asarray(rows, dtype=np.intp)
        return [level[index] for level in self.features]


def read_features(
    extractor: FeatureExtractor,
    samples: Sequence[Sample],
    *,
    limits: ImageLimits | None = None,
    threads: int = 2,
    progress: Progress = lambda done: None,
) -> ImageFeatures:
    """Features of samples, in their order. Raises SourceError naming an unreadable image."""
    features = extract_features(extractor, samples, limits=limits, threads=threads, progress=progress)
    return ImageFeatures(tuple(samples), features)


@dataclass(slots=True)
class Scores:
    """Scores of one evaluation: (frames, levels) distances of normal and of defective frames, and their combination."""

    levels: tuple[str, ...]
    normal: Array
    defective: Array
    defects: tuple[str, ...]
    rule: Rule = Rule.SUM
    folds: int = 1
    info: dict[str, Any] = field(default_factory=dict)

    def combined(self) -> tuple[Array, Array]:
        """(normal, defective) frame scores: the sum over levels."""
        return self.normal.sum(axis=1), self.defective.sum(axis=1)


def split_scores(
    data: Dataset,
    images: ImageFeatures,
    levels: tuple[str, ...],
    options: FitOptions,
    *,
    train_share: float,
    seeds: Sequence[int],
) -> list[Scores]:
    """Fit on a seeded share of the normal frames and score the rest and all defective frames, once a seed."""
    place = {sample: row for row, sample in enumerate(images.samples)}
    defective = data.defective
    results = []
    for seed in seeds:
        split = data.split(train_share, seed)
        gaussians = fit_gaussians(fit_moments(images.take([place[s] for s in split.train])), levels, options)
        held = images.take([place[s] for s in split.held_out])
        bad = images.take([place[s] for s in defective])
        results.append(
            Scores(
                levels,
                np.stack([g.mahalanobis(x) for g, x in zip(gaussians, held, strict=True)], axis=1),
                np.stack([g.mahalanobis(x) for g, x in zip(gaussians, bad, strict=True)], axis=1),
                tuple(sample.defect for sample in defective),
                info={"seed": seed, "train": len(split.train), "held_out": len(split.held_out)},
            )
        )
    return results


def measure(normal: Array, defective: Array, rng: np.random.Generator) -> dict[str, Any]:
    """The statistics of one column of scores."""
    low, high = bootstrap_auroc(normal, defective, rng, draws=200)
    return {
        "auroc": auroc(normal, defective),
        "auroc_interval": [low, high],
        "average_precision": average_precision(normal, defective),
        "tpr_at_1": tpr_at_fpr(normal, defective, 0.01),
        "tpr_at_5": tpr_at_fpr(normal, defective, 0.05),
    }
