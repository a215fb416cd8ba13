"""`gaussline calibrate`: another working point for a version, with the same Gaussians."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from gaussline.worker.commands.console import err, out, progress
from gaussline.worker.commands.fit import choice, fit_table
from gaussline.worker.commands.options import By, Json, Line, Note, RedisUrl, load_settings, who
from gaussline.worker.settings import DECODERS

EPILOG = """\b
Examples:
  gaussline calibrate default parts/ --rate 0.02                      # the stable version, another rate
  gaussline calibrate default parts/ --version 4 --method pareto --rate 0.0005
  gaussline calibrate default newparts/ --method robust --rate 0.05   # unnoticed defects may be among them

Frames that the version was fitted on are left out by their digest, so the folder of the fit may be given again."""


def calibrate(
    name: Annotated[str, typer.Argument(help="Name of the model.")],
    folder: Annotated[Path, typer.Argument(help="Folder with good/, or train/good in the layout of MVTec AD.")],
    rate: Annotated[float, typer.Option(help="Stated false-positive rate: share of good parts that may fail.")],
    version: Annotated[int | None, typer.Option(help="Version; none takes the stable one.", min=1)] = None,
    method: Annotated[
        str, typer.Option(help="conformal, empirical, pareto, chi_squared, hotelling or robust.")
    ] = "conformal",
    weights: Annotated[
        Path | None, typer.Option(help="State-dict file of the backbone; default GAUSSLINE_WEIGHTS.")
    ] = None,
    holdout: Annotated[
        float, typer.Option(help="Share of the frames that the new point is held against instead.", min=0.0, max=0.9)
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of that draw.")] = 0,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable images out; they are listed.")] = False,
    promote: Annotated[bool, typer.Option("--promote", help="Point the stable channel at the new version.")] = False,
    note: Note = "",
    by: By = "",
    redis_url: RedisUrl = None,
    line: Line = None,
    as_json: Json = False,
) -> None:
    """Give a version another working point, and publish it as the next version; the Gaussians stay, to the bit.

    Takes normal frames that the version was not fitted on, in its own backbone and numeric mode. Too few for the rate
    are refused, with the number that is needed. Normal test images (test/good) show what rate is realised.
    """
    from gaussline.worker.broker.client import open_redis
    from gaussline.worker.broker.registry import Registry
    from gaussline.worker.broker.seal import open_seal
    from gaussline.worker.contract.artefact import Artefact
    from gaussline.worker.contract.model import Model
    from gaussline.worker.errors import NotFound
    from gaussline.worker.gaussian.calibration import Method
    from gaussline.worker.learning.fit import report
    from gaussline.worker.learning.normal_images import look, read_normal
    from gaussline.worker.learning.recalibrate import recalibrated
    from gaussline.worker.vision.backbones import load_for
    from gaussline.worker.vision.features import FeatureExtractor
    from gaussline.worker.vision.runtime import choose_runtime
    from gaussline.worker.vision.weights import WeightsSource

    settings = load_settings(redis_url=redis_url, line=line)
    chosen = choice(Method, method, "--method")
    client = open_redis(settings)
    registry = Registry(client, settings.line, seal=open_seal(settings))
    if version is None:
        pointer = registry.pointer(name)
        if pointer is None:
            raise NotFound(f"{name}/stable points nowhere on line {settings.line}: name a --version")
        version = pointer.version
    base = registry.version(name, version)
    model = Model.from_artefact(Artefact.unpack(registry.fetch(base.digest), base.digest))
    look(folder, skip_bad=skip_bad, threads=settings.decode_threads or DECODERS)
    source: Any = weights or settings.weights
    if model.spec.random_weights:
        source = WeightsSource(random_seed=int(model.spec.weights_source.rsplit(":", 1)[-1]))
    backbone = load_for(model.spec, source)
    extractor = FeatureExtractor(
        backbone,
        choose_runtime(
            backbone,
            device=settings.device,
            memory_format=settings.memory_format,
            compile=settings.compile,
            batch_size=settings.batch_max_frames,
            threads=settings.torch_threads,
        ),
    )
    with progress() as bar:
        task = bar.add_task("features", total=None, visible=False)
        images = read_normal(
            folder,
            extractor,
            skip_bad=skip_bad,
            threads=settings.decode_threads or DECODERS,
            progress=lambda done, total: bar.update(task, advance=done, total=total, visible=True),
        )
    for path, why in images.skipped:
        err().print(f"skipped {path}: {why}", highlight=False, markup=False)
    for warning in images.warnings:
        err().print(f"[yellow]warning:[/] {warning}")
    new, left_out = recalibrated(
        model, images, rate=rate, method=chosen, holdout=holdout, seed=seed, origin={"base": version}
    )
    if left_out:
        err().print(f"{left_out} of {len(images.samples)} frames were fitted on by version {version}: left out")
    text = report(new)
    artefact = new.to_artefact()
    made = registry.publish(name, artefact.data, by=who(by), note=note or f"calibrated from {version}", report=text)
    if promote:
        registry.promote(name, made.number, by=who(by), note=note)
    if as_json:
        result = {"model": name, "version": made.number, "base": version, "digest": artefact.digest, "report": text}
        out().print_json(json.dumps(result | {"promoted": promote}))
        return
    out().print(fit_table(text))
    out().print(f"version {made.number} of model {name}: the Gaussians of version {version}", highlight=False)
    if not promote:
        out().print(f"It judges nothing yet: gaussline models promote {name} {made.number}", highlight=False)
