"""Where defects are: the exact heat map beside a Gaussian for each position, against known masks.

    python -m bench.localisation WEIGHTS [--good N] [--defects N] [--mended N] [--grid 1 3 7]

Rendered parts with their masks, MobileNetV2, one split. The map by position asks of each place by itself: local
features, a mean for each position, one covariance a level pooled over all of them (so that a few hundred images are
enough), roots, the levels at input size added up. It localises and does not explain: it adds up to no score. The second
table holds the exact maps against their cause (see `bench.occlusion`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch.nn import functional

from bench.occlusion import BOARD, Mended, mended
from bench.record import machine
from gaussline.producer.sources.synthetic import GOOD, SyntheticParts, write_folder
from gaussline.worker.contract.model import Model
from gaussline.worker.gaussian.density import Gaussian, fit_gaussian
from gaussline.worker.gaussian.moments import Moments
from gaussline.worker.gaussian.pixels import PixelScores
from gaussline.worker.learning.category import Category, Extraction, read_category
from gaussline.worker.learning.dataset import Sample
from gaussline.worker.learning.evaluation import run_plan
from gaussline.worker.learning.features import image_batches
from gaussline.worker.learning.fit import FitOptions, fit_model
from gaussline.worker.learning.localisation import pixel_table, read_masks, shrunk
from gaussline.worker.learning.pipeline import BackboneOptions
from gaussline.worker.learning.protocol import Plan, Protocol, plans
from gaussline.worker.vision.features import FeatureExtractor
from gaussline.worker.vision.preprocess import preprocess_one, stack

SIZE = 224
MENDED = ("scratch", "spot", "missing_hole")
"""Defects that lie somewhere: a part out of focus has no square to mend."""
AT_LEAST = 1.2
"""Scores over that of the sound twin from which it is the defect that a map has to explain."""
FIRST_MENDED = 100_000
"""Parts from here on are in no folder."""
FINEST = 28
"""Positions a side at most: finer maps of shallow levels are averaged down, their defects are larger than a cell."""


def opened(weights: Path, grid: int) -> Extraction:
    """MobileNetV2 cut into regions."""
    return Extraction(
        BackboneOptions("mobilenet_v2", weights, grid=grid, device="cpu", memory_format="channels_last", batch_size=8)
    )


def local(extractor: FeatureExtractor, samples: list[Sample]) -> list[list[NDArray[Any]]]:
    """Local features of samples, image by image: (positions, d) float32 a level."""
    found = []
    for _, images in image_batches(samples, extractor.spec.input_size, extractor.batch_size):
        _, maps = extractor.extract_with_maps(stack(images))
        levels = [functional.adaptive_avg_pool2d(level.float(), min(FINEST, level.shape[-1])) for level in maps.levels]
        found += [[level[row].flatten(1).T.contiguous().numpy() for level in levels] for row in range(len(images))]
    return found


def by_position(category: Category, plan: Plan, extractor: FeatureExtractor) -> tuple[float, float]:
    """Pixel AUROC and PRO of the map by position."""
    train = local(extractor, [category.data.samples[row] for row in plan.train])
    means, gaussians = [], []
    for index in range(len(train[0])):
        mean = np.stack([image[index] for image in train]).mean(axis=0, dtype=np.float64)
        pooled = Moments(mean.shape[1])
        for image in train:
            pooled.update(image[index] - mean)
        means.append(mean)
        gaussians.append(fit_gaussian(pooled))
    masks = read_masks(category)
    rows = np.concatenate([plan.normal, plan.defective])
    samples = [category.data.samples[row] for row in rows]
    scores = PixelScores(np.random.default_rng(0))
    for sample, image in zip(samples, local(extractor, samples), strict=True):
        mask = masks.get(sample.path)
        scores.add(summed(image, means, gaussians), None if mask is None else shrunk(mask, (SIZE, SIZE)))
    result = scores.result()
    return result.auroc, result.pro


def summed(image: list[NDArray[Any]], means: list[NDArray[Any]], gaussians: list[Gaussian]) -> NDArray[Any]:
    """(H, W) map of one image."""
    whole = np.zeros((SIZE, SIZE))
    for level, mean, gaussian in zip(image, means, gaussians, strict=True):
        far = np.sqrt(np.square((level - mean) @ gaussian.whitening.T).sum(axis=1))
        side = round(len(far) ** 0.5)
        grid = torch.from_numpy(far.reshape(1, 1, side, side))
        whole += functional.interpolate(grid, size=(SIZE, SIZE), mode="bilinear", align_corners=False)[0, 0].numpy()
    return whole


def mending(extractor: FeatureExtractor, model: Model, parts: SyntheticParts, frames: int) -> list[tuple[str, Mended]]:
    """Up to so many parts of each defect that raised their scores, each held against its sound twin."""
    found = []
    for kind in MENDED:
        have = 0
        for index in range(FIRST_MENDED, FIRST_MENDED + 5 * frames):
            image, twin = (
                preprocess_one(parts.render(index, label).image, extractor.spec.input_size) for label in (kind, GOOD)
            )
            score, sound = model.scores(list(extractor.extract(stack([image, twin]))))
            if have < frames and score >= AT_LEAST * sound:
                found.append((kind, mended(extractor, model, image, twin)))
                have += 1
    return found


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.localisation", description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path, help="state-dict file of torchvision's mobilenet_v2")
    parser.add_argument("--good", type=int, default=300)
    parser.add_argument("--defects", type=int, default=25, help="of each of four kinds")
    parser.add_argument("--grid", type=int, nargs="+", default=[1, 3, 7])
    parser.add_argument("--mended", type=int, default=10, help="parts of each defect that are mended square by square")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    table = Table(title=f"{options.good} good plates, {options.defects} of each defect, {SIZE} x {SIZE}")
    for column in ("map", "pixel AUROC", "PRO up to 0.3"):
        table.add_column(column, justify="left" if column == "map" else "right")
    cause = Table(
        title=f"one of {BOARD} x {BOARD} squares mended: share of what mending the whole part takes off its score"
    )
    for column in ("map", "defect", "parts", "the square that the map names", "the best square", "a square by lot"):
        cause.add_column(column, justify="left" if column in ("map", "defect") else "right")
    parts = SyntheticParts(options.seed, size=SIZE)
    with tempfile.TemporaryDirectory() as folder:
        write_folder(parts, Path(folder), good=options.good, defects=options.defects)
        for grid in options.grid:
            extraction = opened(options.weights, grid)
            category = read_category(Path(folder), extraction, None)
            plan = plans(category.data, Protocol.SPLIT)[0]
            run = run_plan(category, plan, extraction.spec.levels, FitOptions(), keep=True)
            found = pixel_table(category, run, extraction, read_masks(category), seed=0).rows[0]
            table.add_row(f"exact, --grid {grid}", f"{found[1]:.4f}", f"{found[2]:.4f}")
            model = fit_model(
                [level[plan.train] for level in category.features], extraction.spec, FitOptions(rate=0.05)
            )
            held = mending(extraction.extractor, model, parts, options.mended)
            for kind in MENDED:
                own = [one for name, one in held if name == kind]
                shares = [f"{np.mean([getattr(one, what) for one in own]):.0%}" for what in ("named", "best", "mean")]
                cause.add_row(f"exact, --grid {grid}", kind, str(len(own)), *shares)
        extraction = opened(options.weights, 1)
        area, overlap = by_position(category, plan, extraction.extractor)
        table.add_row("a Gaussian for each position, pooled covariance", f"{area:.4f}", f"{overlap:.4f}")
    console = Console(width=120)
    console.print(machine())
    console.print(table)
    console.print(cause)
    return 0


if __name__ == "__main__":
    sys.exit(main())
