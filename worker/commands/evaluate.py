"""`gaussline evaluate`: how well normal and defective frames of a folder are told apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from gaussline.worker.commands.console import err, out, progress
from gaussline.worker.commands.fit import choice
from gaussline.worker.settings import Settings


def evaluate(
    folder: Annotated[Path, typer.Argument(help="Folder with good/ and bad/<defect>/, or in the layout of MVTec AD.")],
    backbone: Annotated[str, typer.Option(help="Backbone.")] = "mobilenet_v2",
    weights: Annotated[Path | None, typer.Option(help="State-dict file; none takes torchvision's own.")] = None,
    train_share: Annotated[
        float, typer.Option(help="Share of the normal frames to fit on, where the folder has no split of its own.")
    ] = 0.7,
    seeds: Annotated[int, typer.Option(help="How many seeded splits to average over.")] = 1,
    seed: Annotated[int, typer.Option(help="The first seed.")] = 0,
    estimator: Annotated[str, typer.Option(help="Covariance: ledoit_wolf, oas or empirical.")] = "ledoit_wolf",
    projection: Annotated[str, typer.Option(help="none, pca, npca, l2 or standardised.")] = "none",
    variance: Annotated[float, typer.Option(help="Fraction of variance at which pca or npca cuts.")] = 0.99,
    numeric_mode: Annotated[str, typer.Option(help="float32, bfloat16 or tf32.")] = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Image AUROC for each level and their sum, and for each defect type.

    Fits on a share of the normal frames and scores the others and every defective frame; the folder needs both.

    Example: gaussline evaluate parts/ --seeds 10
    """
    import numpy as np

    from gaussline.worker.gaussian.covariance import Estimator
    from gaussline.worker.gaussian.density import Projection
    from gaussline.worker.gaussian.metrics import auroc
    from gaussline.worker.learning.dataset import read_dataset
    from gaussline.worker.learning.fit import FitOptions
    from gaussline.worker.learning.pipeline import BackboneOptions, measure, read_features, split_scores

    settings = Settings.load()
    options = FitOptions(
        estimator=choice(Estimator, estimator, "--estimator"),
        projection=choice(Projection, projection, "--projection"),
        variance=variance,
    )
    data = read_dataset(folder, need_defects=True)
    copies = data.duplicates()
    if copies:
        err().print(
            f"[yellow]warning:[/] {len(copies)} groups of files have the same bytes (such as {copies[0][0].name} and "
            f"{copies[0][1].name}): copies on both sides of a split make an AUROC look better than it is"
        )
    extractor = BackboneOptions(
        backbone,
        weights,
        numeric_mode=numeric_mode,
        device=settings.device,
        memory_format=settings.memory_format,
        compile=settings.compile,
        threads=settings.torch_threads,
    ).open()
    err().print(
        f"{len(data.normal)} normal and {len(data.defective)} defective frames; {backbone} runs as {extractor.runtime}"
    )
    with progress() as bar:
        task = bar.add_task("features", total=len(data.samples))
        images = read_features(
            extractor, data.samples, threads=settings.decode_threads, progress=lambda done: bar.advance(task, done)
        )
    runs = split_scores(
        data,
        images,
        extractor.spec.levels,
        options,
        train_share=train_share,
        seeds=range(seed, seed + max(1, seeds)),
    )
    rng = np.random.default_rng(seed)
    columns: dict[str, list[dict[str, Any]]] = {name: [] for name in (*extractor.spec.levels, "sum")}
    by_defect: dict[str, list[float]] = {name: [] for name in data.defects}
    for run in runs:
        for index, name in enumerate(extractor.spec.levels):
            columns[name].append(measure(run.normal[:, index], run.defective[:, index], rng))
        normal, defective = run.combined()
        columns["sum"].append(measure(normal, defective, rng))
        names = np.asarray(run.defects)
        for name, values in by_defect.items():
            values.append(auroc(normal, defective[names == name]))
    rows = {name: _mean(values) for name, values in columns.items()}
    result = {
        "folder": folder.name,
        "backbone": extractor.spec.to_dict(),
        "runtime": str(extractor.runtime),
        "seeds": [run.info for run in runs],
        "levels": rows,
        "auroc": rows["sum"]["auroc"],
        "defects": {name: float(np.mean(values)) for name, values in by_defect.items()},
    }
    if as_json:
        out().print_json(json.dumps(result))
        return
    out().print(_table(rows, runs[0].info, len(runs)))
    defects = Table(title="image AUROC a defect, sum of levels")
    defects.add_column("defect")
    defects.add_column("frames", justify="right")
    defects.add_column("AUROC", justify="right")
    for name, value in result["defects"].items():
        defects.add_row(name, str(sum(sample.defect == name for sample in data.defective)), f"{value:.4f}")
    out().print(defects)


def _mean(values: list[dict[str, Any]]) -> dict[str, Any]:
    import numpy as np

    mean = {name: np.mean([value[name] for value in values], axis=0).tolist() for name in values[0]}
    mean["auroc_spread"] = float(np.std([value["auroc"] for value in values], ddof=1)) if len(values) > 1 else 0.0
    return mean


def _table(rows: dict[str, dict[str, Any]], info: dict[str, Any], seeds: int) -> Table:
    table = Table(title=f"fit on {info['train']}, scored on {info['held_out']} normal frames; mean of {seeds} splits")
    for column in ("level", "AUROC", "95 % interval", "average precision", "TPR at 1 % FPR", "TPR at 5 % FPR"):
        table.add_column(column, justify="left" if column == "level" else "right")
    for name, row in rows.items():
        low, high = row["auroc_interval"]
        table.add_row(
            f"[bold]{name}[/]" if name == "sum" else name,
            f"{row['auroc']:.4f}",
            f"{low:.3f} … {high:.3f}",
            f"{row['average_precision']:.3f}",
            f"{row['tpr_at_1']:.3f}",
            f"{row['tpr_at_5']:.3f}",
        )
    return table
