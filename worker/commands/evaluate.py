"""`gaussline evaluate`: how well normal and defective frames of folders are told apart."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from gaussline.worker.commands.console import err, out, progress
from gaussline.worker.commands.fit import DEFAULT_GRID, choice
from gaussline.worker.commands.options import write_file
from gaussline.worker.settings import DECODERS, Settings

EPILOG = """\b
Examples:
  gaussline evaluate parts/ --seeds 10                      a folder with good/ and bad/<defect>/
  gaussline evaluate parts/ --grid 1                        the paper's own setting
  gaussline evaluate mvtec/ --protocol paper --extra all    all categories in the layout of MVTec AD, the paper's tables
  gaussline evaluate parts/ --html report.html --csv all.csv --json
"""


def evaluate(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER...",
            help="Folders with good/ and bad/<defect>/, or in the layout of MVTec AD; or one that holds such folders.",
        ),
    ],
    backbone: Annotated[str, typer.Option(help="Backbone, or several joined by +: an ensemble.")] = "mobilenet_v2",
    weights: Annotated[
        Path | None,
        typer.Option(help="State-dict file, or a folder; default GAUSSLINE_WEIGHTS, else torchvision's own."),
    ] = None,
    levels: Annotated[str | None, typer.Option(help="Comma-separated levels; none takes all.")] = None,
    grid: Annotated[
        int,
        typer.Option(
            help="Regions a side that levels of at most 512 channels are cut into; 1 is the paper's.", min=1, max=16
        ),
    ] = DEFAULT_GRID,
    views: Annotated[
        str | None, typer.Option(help="Comma-separated views whose features are averaged; see 'gaussline fit'.")
    ] = None,
    augment: Annotated[
        str | None, typer.Option(help="Fit on turned and relit copies too: hflip,brightness:0.9..1.1; see 'fit'.")
    ] = None,
    copies: Annotated[int, typer.Option(help="Augmented copies of each training image.", min=1, max=100)] = 4,
    input_size: Annotated[
        int | None, typer.Option(help="Side of the network's input in pixels; none takes the native one.", min=32)
    ] = None,
    numeric_mode: Annotated[str, typer.Option(help="float32, bfloat16 or tf32.")] = "float32",
    estimator: Annotated[str | None, typer.Option(help="Covariance: ledoit_wolf, oas or empirical.")] = None,
    projection: Annotated[str | None, typer.Option(help="none, pca, npca, l2 or standardised.")] = None,
    variance: Annotated[float | None, typer.Option(help="Fraction of variance at which pca or npca cuts.")] = None,
    rule: Annotated[str | None, typer.Option(help="Levels combined by sum, mean, max or standardised.")] = None,
    robust: Annotated[
        bool, typer.Option("--robust", help="Leave out training images that look defective, as 'gaussline fit' does.")
    ] = False,
    protocol: Annotated[
        str,
        typer.Option(
            help="split: fit on a share of the normal images, or on the folder's own training images. folds: each "
            "normal image scored by the fit that has not seen it. paper: folds over the training images (seed 0), "
            "every one scored on the whole test set."
        ),
    ] = "split",
    folds: Annotated[int, typer.Option(help="How many folds, for the protocols that have them.")] = 5,
    train_share: Annotated[
        float, typer.Option(help="Share of the normal images to fit on, where the folder has no split of its own.")
    ] = 0.7,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeded divisions to average over.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="The first seed; bootstrap draws follow it too.")] = 0,
    draws: Annotated[int, typer.Option(min=1, help="Bootstrap draws of an interval.")] = 500,
    confidence: Annotated[float, typer.Option(help="Confidence of intervals.")] = 0.95,
    extra: Annotated[
        str | None,
        typer.Option(
            help="More tables, comma-separated, or all: combinations (of levels), controls (L2, SED, one-class SVM), "
            "components (PCA, NPCA), sigma (the published threshold), contamination (defects in training)."
        ),
    ] = None,
    pixels: Annotated[bool, typer.Option(help="Pixel AUROC and PRO where ground_truth/ has masks.")] = True,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out images that cannot be read.")] = False,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder of computed features and maps; default GAUSSLINE_FEATURE_CACHE, ~/.cache/gaussline."),
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Compute all features, and keep none.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a self-contained report: one HTML file.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write every number: category, table, row, column, value.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """AUROC, average precision and found shares of each level and of their combination, with intervals.

    Fits on normal images alone and scores images it has not seen. Features are computed once and kept by the content of
    the image and of the backbone, heat maps by that of the fit too: a second run takes seconds. Files with the same
    bytes, images that cannot be read, and masks that do not fit are told.
    """
    from gaussline.worker.commands.evaluation_output import csv_text, print_evaluation
    from gaussline.worker.learning.assessment import Assessor, EvaluationOptions
    from gaussline.worker.learning.augmentation import Augmentation
    from gaussline.worker.learning.category import Extraction, find_categories
    from gaussline.worker.learning.content_store import ContentStore
    from gaussline.worker.learning.controls import Extra
    from gaussline.worker.learning.dataset import read_dataset
    from gaussline.worker.learning.feature_cache import FeatureCache
    from gaussline.worker.learning.pipeline import BackboneOptions
    from gaussline.worker.learning.protocol import PAPER_SEED, Protocol

    settings = Settings.load(feature_cache=cache)
    ask = EvaluationOptions(
        fit=_fit_options(estimator, projection, variance, rule, robust),
        protocol=choice(Protocol, protocol, "--protocol"),
        folds=folds,
        train_share=train_share,
        seeds=tuple(range(seed, seed + seeds)) if protocol != Protocol.PAPER else (PAPER_SEED,),
        draws=draws,
        confidence=confidence,
        seed=seed,
        extra=_extra(extra, Extra),
        pixels=pixels,
        examples=html is not None,
        threads=settings.decode_threads or DECODERS,
        skip_bad=skip_bad,
        augmentation=None if augment is None else Augmentation.parse(augment, copies, seed),
    )
    for path in (html, csv):
        if path is not None and not path.parent.is_dir():
            raise typer.BadParameter(f"{path.parent} is no folder", param_hint="--html, --csv")
    paths = find_categories(folders)
    for path in paths:
        read_dataset(path, need_defects=True)  # refused before a backbone is fetched
    store = None if no_cache else ContentStore(_cache_folder(settings), settings.feature_cache_max_bytes)
    kept = None if store is None else FeatureCache(store)
    extraction = Extraction(
        BackboneOptions(
            backbone,
            weights or settings.weights,
            levels=None if levels is None else tuple(part.strip() for part in levels.split(",")),
            input_size=input_size,
            numeric_mode=numeric_mode,
            grid=grid,
            views=() if views is None else tuple(part.strip() for part in views.split(",")),
            device=settings.device,
            memory_format=settings.memory_format,
            compile=settings.compile,
            threads=settings.torch_threads,
        ),
        lambda extractor: err().print(f"{backbone} runs as {extractor.runtime}"),
    )
    with progress("done") as bar:
        task = bar.add_task("", total=None, visible=False)

        def stage(name: str, total: int) -> None:
            bar.reset(task, total=total, description=name, visible=True)

        assessor = Assessor(extraction, kept, ask, stage=stage, progress=lambda done: bar.advance(task, done))
        result = assessor.assess(paths)
    if store is not None and kept is not None:
        store.trim()
        if store.trouble:
            err().print(f"[yellow]warning:[/] the feature cache cannot be used: {store.trouble}", highlight=False)
        err().print(f"features: {kept.hits} from the cache, {kept.misses} computed", highlight=False)
    for category in result.categories:
        for warning in category.warnings:
            err().print(f"[yellow]warning:[/] {category.name}: {warning}", highlight=False)
    if csv is not None:
        write_file(csv, csv_text(result).encode())
    if html is not None:
        from gaussline.worker.learning.report import html_report

        write_file(html, html_report(result).encode())
    if as_json:
        out().print_json(json.dumps(result.to_dict()))
    else:
        print_evaluation(out(), result)
    for path in (html, csv):
        if path is not None:
            err().print(f"written: {path}", highlight=False)


def _fit_options(
    estimator: str | None, projection: str | None, variance: float | None, rule: str | None, robust: bool
) -> Any:
    """The defaults of a fit, but for what was given."""
    from gaussline.worker.gaussian.combination import Rule
    from gaussline.worker.gaussian.covariance import Estimator
    from gaussline.worker.gaussian.density import Projection
    from gaussline.worker.learning.fit import FitOptions

    options = FitOptions(robust=robust)
    if estimator is not None:
        options = replace(options, estimator=choice(Estimator, estimator, "--estimator"))
    if projection is not None:
        options = replace(options, projection=choice(Projection, projection, "--projection"))
    if variance is not None:
        options = replace(options, variance=variance)
    if rule is not None:
        options = replace(options, rule=choice(Rule, rule, "--rule"))
    return options


def _cache_folder(settings: Settings) -> Path:
    if settings.feature_cache is not None:
        return settings.feature_cache
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "gaussline" / "features"


def _extra(text: str | None, kind: Any) -> frozenset[Any]:
    if text is None:
        return frozenset()
    if text.strip() == "all":
        return frozenset(kind)
    return frozenset(choice(kind, part.strip(), "--extra") for part in text.split(","))
