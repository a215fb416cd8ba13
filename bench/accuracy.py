"""This method beside public ones on the same folder, split and weights: `make bench-accuracy`, or --help.

The peers are installed from PyPI into an environment of their own (.build/peers), which shares this one's torch, so
that times can be compared. A fit's seconds hold the features of the training images, but not reading them; a frame's
milliseconds hold the backbone and the score in batches of 8 on two threads; megabytes are what was learnt, without the
backbone, as it is held where frames are scored. Peers run as their packages have it, in float32 like ours; PatchCore
keeps 1 % of its patches.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from bench.record import machine
from gaussline.worker.gaussian.metrics import auroc
from gaussline.worker.learning.dataset import Dataset, Sample, read_dataset
from gaussline.worker.learning.features import Features, image_batches
from gaussline.worker.learning.fit import FitOptions, fit_rows
from gaussline.worker.learning.pipeline import BackboneOptions
from gaussline.worker.learning.protocol import Plan, Protocol, plans
from gaussline.worker.vision.features import FeatureExtractor
from gaussline.worker.vision.preprocess import stack

PEERS = Path(".build/peers")
REQUIRED = "anomalib>=2.7,<3"
LEVELS = tuple(f"features.{index}" for index in (1, 3, 6, 10, 13, 16, 17, 18))
BATCH, THREADS = 8, 2
GRIDS = {3: ", the default", 7: ", the best setting of docs/defaults.md"}


def environment() -> Path:
    """The peers' Python; their environment is made where it is missing."""
    python = PEERS / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(PEERS)], check=True)
        packages = next((PEERS / "lib").glob("python*")) / "site-packages"
        (packages / "shared.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n", "utf-8")
    known = subprocess.run([str(python), "-c", "import anomalib"], check=False, capture_output=True)
    if known.returncode:
        subprocess.run([str(python), "-m", "pip", "install", "-q", REQUIRED], check=True)
    return python


def opened(weights: Path, grid: int) -> FeatureExtractor:
    """MobileNetV2 cut into regions, ready to run."""
    asked = BackboneOptions(
        "mobilenet_v2",
        weights,
        levels=LEVELS,
        grid=grid,
        device="cpu",
        memory_format="channels_last",
        batch_size=BATCH,
        threads=THREADS,
    )
    return asked.open()


def extract(extractor: FeatureExtractor, images: list[torch.Tensor]) -> Features:
    """Features of images at the input size."""
    parts = [extractor.extract(stack(images[at : at + BATCH])) for at in range(0, len(images), BATCH)]
    return [np.concatenate([part[level] for part in parts]) for level in range(len(extractor.spec.levels))]


def ours(
    extractor: FeatureExtractor, images: dict[str, list[torch.Tensor]], name: str
) -> tuple[dict[str, Any], dict[str, Features]]:
    """One line of the table, and the features behind it."""
    began = time.perf_counter()
    features = {"train": extract(extractor, images["train"])}
    fitted = fit_rows(features["train"], np.arange(len(images["train"])), extractor.spec.levels, FitOptions())
    fit_s = time.perf_counter() - began
    began = time.perf_counter()
    scores = {}
    for kind in ("normal", "defective"):
        features[kind] = extract(extractor, images[kind])
        scores[kind] = fitted.combination.combine(fitted.distances(features[kind]))
    frames = len(images["normal"]) + len(images["defective"])
    frame_ms = 1000 * (time.perf_counter() - began) / frames
    # As a worker holds it: the mean in float64, the whitening matrix in float32.
    held = sum(gaussian.mean.nbytes + gaussian.whitening.nbytes // 2 for gaussian in fitted.gaussians)
    row = {
        "method": name,
        "auroc": auroc(scores["normal"], scores["defective"]),
        "fit_s": fit_s,
        "frame_ms": frame_ms,
        "model_mb": held / 1e6,
    }
    return row, features


def at_most(plan: Plan, most: int) -> Plan:
    """The first images of each kind; normal ones are in a drawn order, defective ones are drawn."""
    defective = np.random.default_rng(plan.seed).permutation(plan.defective)
    return Plan(plan.seed, plan.fold, plan.train[:most], plan.normal[:most], np.sort(defective[:most]))


def read(samples: list[Sample], size: tuple[int, int]) -> list[torch.Tensor]:
    """Images at the input size."""
    return [image for _, images in image_batches(samples, size, 16, threads=THREADS) for image in images]


def peers(
    python: Path, data: Dataset, plan: Plan, weights: Path, features: dict[str, Features]
) -> list[dict[str, Any]]:
    """The peers' lines."""
    folder = Path(".build/bench")
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {f"{kind}_{index}": level for kind, own in features.items() for index, level in enumerate(own)}
    np.savez(folder / "features.npz", **arrays)  # type: ignore[arg-type]
    rows = {"train": plan.train, "normal": plan.normal, "defective": plan.defective}
    ask: dict[str, Any] = {kind: [str(data.samples[row].path.resolve()) for row in own] for kind, own in rows.items()}
    ask |= {"weights": str(weights), "features": str(folder / "features.npz"), "output": str(folder / "peers.json")}
    (folder / "ask.json").write_text(json.dumps(ask), "utf-8")
    # What their packages say of each other on import is not about this table.
    quiet = ["-W", "ignore::FutureWarning", "-W", "ignore::DeprecationWarning"]
    command = [str(python), *quiet, "bench/accuracy_peers.py", str(folder / "ask.json")]
    subprocess.run(command, check=True, env={**os.environ, "TQDM_DISABLE": "1"})
    found: list[dict[str, Any]] = json.loads((folder / "peers.json").read_text("utf-8"))
    return found


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy", description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with good/ and bad/<defect>/, or in the layout of MVTec AD")
    parser.add_argument("weights", type=Path, help="state-dict file of torchvision's mobilenet_v2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=int, default=150, help="images of each kind at most, the same for all methods")
    parser.add_argument("--no-peers", action="store_true", help="this package alone")
    parser.add_argument("--output", type=Path, default=Path(".build/bench/accuracy.json"))
    options = parser.parse_args()
    console = Console(width=120)
    data = read_dataset(options.data, need_defects=True)
    plan = at_most(plans(data, Protocol.SPLIT, seeds=(options.seed,))[0], options.most)
    extractors = {grid: opened(options.weights, grid) for grid in (1, *GRIDS)}
    size = extractors[1].spec.input_size
    rows = {"train": plan.train, "normal": plan.normal, "defective": plan.defective}
    images = {kind: read([data.samples[row] for row in own], size) for kind, own in rows.items()}
    for extractor in extractors.values():
        extract(extractor, images["train"][:16])  # the first pass pays for what all others reuse
    paper, features = ours(extractors[1], images, "gaussline --grid 1: the paper's sum over levels")
    table = [paper, *(ours(extractors[grid], images, f"gaussline --grid {grid}{GRIDS[grid]}")[0] for grid in GRIDS)]
    if not options.no_peers:
        table += peers(environment(), data, plan, options.weights, features)
    shape = Table(
        title=f"{data.root.name}: fitted on {plan.train.size}, scored {plan.normal.size} normal and "
        f"{plan.defective.size} defective images"
    )
    for column in ("method", "AUROC", "fit s", "ms a frame", "model MB"):
        shape.add_column(column, justify="left" if column == "method" else "right")
    for row in table:
        frame = "–" if row["frame_ms"] is None else f"{row['frame_ms']:.1f}"
        shape.add_row(row["method"], f"{row['auroc']:.4f}", f"{row['fit_s']:.1f}", frame, f"{row['model_mb']:.1f}")
    console.print(machine())
    console.print(shape)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"machine": machine(), "rows": table}, indent=2) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
