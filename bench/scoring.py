"""What scoring costs beside the backbone, and what a fit costs: `python -m bench.scoring`, or --help.

All levels of a backbone at its native size, random weights (they cost what real ones cost), batches of 32 on two
threads. Backbone and scoring run in turns, medians are compared. A fit is what `gaussline fit` does once the features
are there: moments, covariances, factors, and the working point. Ends with 1 where scoring takes over 2 % of the
backbone's time, or a fit over 10 s.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from bench.record import machine
from gaussline.worker.learning.fit import FitOptions, fit_model
from gaussline.worker.vision.backbones import load_backbone
from gaussline.worker.vision.features import FeatureExtractor
from gaussline.worker.vision.runtime import RuntimeChoice
from gaussline.worker.vision.scorer import Scorer
from gaussline.worker.vision.weights import WeightsSource

SHARE, FIT_S = 0.02, 10.0
THREADS = 2


def measured(name: str, grid: int, batch: int, frames: int, rounds: int) -> dict[str, Any]:
    """One line of the table."""
    backbone = load_backbone(name, WeightsSource(random_seed=0), grid=grid)
    extractor = FeatureExtractor(backbone, RuntimeChoice("cpu", "channels_last", batch, threads=THREADS))
    spec = extractor.spec
    draw = np.random.default_rng(0)
    # Correlated, as features are: a fit of white noise would be as dear, but its condition number tells nothing.
    features = [
        (draw.standard_normal((frames, width)) @ np.triu(draw.standard_normal((width, width)) / width**0.5) + 1.0)
        for width in spec.channels
    ]
    began = time.perf_counter()
    model = fit_model([level.astype(np.float32) for level in features], spec, FitOptions(rate=0.01))
    fit_s = time.perf_counter() - began
    scorer = Scorer(spec)
    prepared = scorer.prepare(model)
    pictures = torch.randint(
        0, 256, (batch, 3, *spec.input_size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    backbone_s, scoring_s = [], []
    for turn in range(rounds + 1):
        began = time.perf_counter()
        levels = extractor.extract_tensors(pictures)
        middle = time.perf_counter()
        scorer.decide(levels, model, prepared)
        if turn:  # the first round pays for what all others reuse
            backbone_s.append(middle - began)
            scoring_s.append(time.perf_counter() - middle)
    backbone_ms, scoring_ms = (1000 * statistics.median(each) for each in (backbone_s, scoring_s))
    return {
        "backbone": name,
        "grid": grid,
        "gaussians": len(spec.channels),
        "features": sum(spec.channels),
        "backbone_ms": backbone_ms,
        "scoring_ms": scoring_ms,
        "share": scoring_ms / backbone_ms,
        "fit_s": fit_s,
        "prepared_mb": prepared.size_bytes / 1e6,
    }


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.scoring", description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="efficientnet_b4")
    parser.add_argument("--grid", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--frames", type=int, default=1000, help="frames of the fit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path(".build/bench/scoring.json"))
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    rows = [measured(options.backbone, grid, options.batch, options.frames, options.rounds) for grid in options.grid]
    console = Console(width=120)
    console.print(machine())
    table = Table(title=f"{options.backbone}, batch {options.batch}; fit of {options.frames} frames")
    for column in ("grid", "Gaussians", "features", "backbone ms", "scoring ms", "share", "fit s", "on the device MB"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            str(row["grid"]),
            str(row["gaussians"]),
            str(row["features"]),
            f"{row['backbone_ms']:.0f}",
            f"{row['scoring_ms']:.1f}",
            f"{row['share']:.2%}",
            f"{row['fit_s']:.1f}",
            f"{row['prepared_mb']:.0f}",
        )
    console.print(table)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n", "utf-8")
    missed = [row for row in rows if row["share"] > SHARE or row["fit_s"] > FIT_S]
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
