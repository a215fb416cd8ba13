"""What unnoticed defects do to a fit, and what a robust fit keeps: the table of docs/method.md.

    python -m bench.contamination FOLDER... --weights FILE [--backbone NAME] [--seeds N] [--share 0.1]

A share of *all* training and calibration images is defective and unlabelled. `gaussline evaluate --extra contamination`
moves shares of the defects instead, as the paper's question was; both score the same images in every row.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.record import machine
from gaussline.worker.learning.category import Extraction, read_category
from gaussline.worker.learning.contamination import RATE, Contaminated, contaminated
from gaussline.worker.learning.fit import FitOptions
from gaussline.worker.learning.pipeline import BackboneOptions
from gaussline.worker.learning.protocol import Protocol, plans

COLUMNS = ("data", "training images", "fit", "AUROC", "lost", "realised", "found at 5 %", "of the clean fit's")


def rows(name: str, draws: list[Contaminated]) -> list[list[str]]:
    """Three rows of the table: clean, plain, robust."""
    made = []
    means: dict[str, tuple[float, float]] = {}
    for fit, training in (("clean", "clean"), ("plain", "defects among them"), ("robust", "defects among them")):
        own = [getattr(draw, fit) for draw in draws]
        areas = np.array([one.auroc for one in own])
        error = areas.std(ddof=1) / len(own) ** 0.5 if len(own) > 1 else float("nan")
        area, tpr = float(areas.mean()), float(np.mean([one.tpr for one in own]))
        means[fit] = area, tpr
        realised = f"{np.mean([one.fpr for one in own]):.3f}"
        limits = [one.interval for one in own if one.interval is not None]
        if limits:
            low, high = np.mean(limits, axis=0)
            realised += f", interval {low:.3f} … {high:.3f}"
        lost, kept = (
            ("", "") if fit == "clean" else (f"{means['clean'][0] - area:.4f}", f"{tpr / means['clean'][1]:.0%}")
        )
        shown = "plain" if fit == "clean" else fit
        made.append([name, training, shown, f"{area:.4f} ± {error:.4f}", lost, realised, f"{tpr:.3f}", kept])
    return made


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.contamination", description=__doc__.splitlines()[0])
    parser.add_argument(
        "folders", type=Path, nargs="+", help="with good/ and bad/<defect>/, or in the layout of MVTec AD"
    )
    parser.add_argument("--weights", type=Path, required=True, help="state-dict file of the backbone")
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--grid", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--share", type=float, default=0.1, help="of all training and calibration images")
    options = parser.parse_args()
    table = Table(title=f"{options.share:.0%} of all training images defective, {options.seeds} seeds")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in COLUMNS[:3] else "right")
    extraction = Extraction(BackboneOptions(options.backbone, options.weights, grid=options.grid, device="cpu"))
    for folder in options.folders:
        category = read_category(folder, extraction, None)
        planned = plans(category.data, Protocol.SPLIT, seeds=tuple(range(options.seeds)))
        fit = FitOptions(rate=RATE)
        draws = [contaminated(category, plan, extraction.spec, fit, options.share, plan.seed) for plan in planned]
        for row in rows(category.name, draws):
            table.add_row(*row)
    console = Console(width=140)
    console.print(machine())
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
