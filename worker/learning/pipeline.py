"""From a backbone's name and a list of images to features: what `fit`, `evaluate` and the demo share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gaussline.worker.contract.limits import ImageLimits
from gaussline.worker.learning.dataset import Sample
from gaussline.worker.learning.features import Features, extract_features
from gaussline.worker.vision.backbones import Backbone, load_backbone
from gaussline.worker.vision.features import FeatureExtractor
from gaussline.worker.vision.runtime import RuntimeChoice, choose_runtime
from gaussline.worker.vision.weights import WeightsSource

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class BackboneOptions:
    """Which backbone, with which weights, run how.

    Attributes:
        random_seed: of random weights; only where somebody asked for them and says so on every result.
        grid: regions a side that levels are cut into.
        views: ways to look at an image whose features are averaged.
    """

    name: str = "mobilenet_v2"
    weights: Path | None = None
    random_seed: int | None = None
    levels: tuple[str, ...] | None = None
    input_size: int | None = None
    numeric_mode: str = "float32"
    grid: int = 1
    views: tuple[str, ...] = ()
    device: str = "auto"
    memory_format: str = "auto"
    compile: str = "off"
    batch_size: int | None = None
    threads: int | None = None

    def open(self) -> FeatureExtractor:
        """Load, measure and choose. Raises WeightsUnavailable, BackboneMismatch, NotFound, SettingsError."""
        return self.start(self.load())

    def load(self) -> Backbone:
        """Load only: its spec says what its features would be. Raises as `open` does."""
        source: WeightsSource | Path | None = self.weights
        if self.random_seed is not None:
            source = WeightsSource(random_seed=self.random_seed)
        return load_backbone(
            self.name,
            source,
            levels=self.levels,
            input_size=None if self.input_size is None else (self.input_size, self.input_size),
            numeric_mode=self.numeric_mode,
            grid=self.grid,
            views=self.views,
        )

    def start(self, backbone: Backbone) -> FeatureExtractor:
        """Measure what suits this machine, and choose. Raises SettingsError."""
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
