"""`gaussline fit`: normal frames in, a model version out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from gaussline.worker.commands.console import err, out, progress
from gaussline.worker.commands.options import load_settings, who, write_file
from gaussline.worker.contract.keys import check_name
from gaussline.worker.errors import SourceError


def fit(
    folder: Annotated[
        Path | None,
        typer.Argument(help="Folder with good/ (and bad/<defect>/), or train/good in the layout of MVTec AD."),
    ] = None,
    events: Annotated[
        str | None,
        typer.Option(help="Instead of a folder: recorded feature events of this model (GAUSSLINE_FEATURES=all)."),
    ] = None,
    name: Annotated[str, typer.Option("--name", "-n", help="Name of the model.")] = "default",
    backbone: Annotated[
        str, typer.Option(help="Backbone; 'gaussline fit --help' of a wrong one lists them.")
    ] = "mobilenet_v2",
    weights: Annotated[
        Path | None, typer.Option(help="State-dict file of its weights; none takes torchvision's own.")
    ] = None,
    rate: Annotated[float, typer.Option(help="Stated false-positive rate: share of good parts that may fail.")] = 0.01,
    calibration_share: Annotated[
        float, typer.Option(help="Share of the normal frames held back for the working point.")
    ] = 0.3,
    estimator: Annotated[str, typer.Option(help="Covariance: ledoit_wolf, oas or empirical.")] = "ledoit_wolf",
    projection: Annotated[
        str, typer.Option(help="Directions: none, pca (high variance) or npca (low variance).")
    ] = "none",
    variance: Annotated[float, typer.Option(help="Fraction of variance at which pca or npca cuts.")] = 0.99,
    rule: Annotated[str, typer.Option(help="Combination of levels: sum, mean, max or standardised.")] = "sum",
    levels: Annotated[str | None, typer.Option(help="Comma-separated levels; none takes all.")] = None,
    numeric_mode: Annotated[
        str, typer.Option(help="float32, bfloat16 or tf32; it belongs to the model, and workers compute in it.")
    ] = "float32",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw of calibration frames.")] = 0,
    promote: Annotated[bool, typer.Option("--promote", help="Point the stable channel at the new version.")] = False,
    note: Annotated[str, typer.Option(help="Why; it stands in the version's record.")] = "",
    by: Annotated[str, typer.Option(help="Who; it stands in the version's record.")] = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the artefact to a file, and touch no Redis.")
    ] = None,
    redis_url: Annotated[str | None, typer.Option(help="Redis; default GAUSSLINE_REDIS_URL.")] = None,
    line: Annotated[str | None, typer.Option(help="Line; default GAUSSLINE_LINE.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the version and its report as JSON.")] = False,
) -> None:
    """Fit a model on normal frames and publish it as the next version.

    The working point comes from frames the fit has not seen; a rate they are too few for is refused, with the number
    that is needed.

    From recorded events, frames that passed teach, and the reservoir calibrates: a share of all frames, drawn before
    they were scored (GAUSSLINE_RESERVOIR_SHARE), failed ones included. Defective parts in it make the working point
    milder: with more of them than the stated rate, fit on a folder of parts that are known to be good.

    Example: gaussline fit parts/ --rate 0.02 --promote
    """
    from gaussline.worker.broker.client import connect
    from gaussline.worker.broker.registry import Registry
    from gaussline.worker.gaussian.combination import Rule
    from gaussline.worker.gaussian.covariance import Estimator
    from gaussline.worker.gaussian.density import Projection
    from gaussline.worker.learning.dataset import read_dataset
    from gaussline.worker.learning.fit import FitOptions, fit_model, report
    from gaussline.worker.learning.pipeline import BackboneOptions, read_features
    from gaussline.worker.learning.recorded import read_recorded

    settings = load_settings(redis_url=redis_url, line=line)
    check_name("model", name)  # before minutes are spent on a fit that nobody could store
    options = FitOptions(
        rate=rate,
        calibration_share=calibration_share,
        estimator=choice(Estimator, estimator, "--estimator"),
        projection=choice(Projection, projection, "--projection"),
        variance=variance,
        rule=choice(Rule, rule, "--rule"),
        seed=seed,
    )
    client: Any = None
    registry = None
    if output is not None:
        if not output.parent.is_dir():
            raise SourceError(f"{output} cannot be written: {output.parent} is no folder")
    else:
        client = connect(settings.redis_url.get_secret_value(), timeout_s=settings.redis_timeout_s)
        registry = Registry(client, settings.line)
        registry.models()  # before minutes are spent on a fit that nobody can store
    if events is not None:
        if folder is not None or output is not None:
            raise typer.BadParameter(
                "takes the line's own record: give neither a folder nor --output", param_hint="--events"
            )
        assert registry is not None
        recorded = read_recorded(client, settings.line, events, registry)
        recorded.require(rate, settings.reservoir_share)
        err().print(
            f"{events}, recorded up to version {recorded.version}: {recorded.teaching} passed frames teach, "
            f"{recorded.calibrating} of the reservoir calibrate ({recorded.reservoir_failed} of them had failed)"
        )
        origin = {"events": events, "base": recorded.version, "reservoir_failed": recorded.reservoir_failed}
        model = fit_model(recorded.features, recorded.spec, options, origin, calibrating=recorded.reservoir)
    else:
        if folder is None:
            raise typer.BadParameter("give a folder, or --events MODEL", param_hint="FOLDER")
        data = read_dataset(folder)
        samples = [sample for sample in data.normal if sample.fixed_split != "test"]
        err().print(f"{len(samples)} normal frames in {folder}")
        extractor = BackboneOptions(
            backbone,
            weights,
            levels=None if levels is None else tuple(part.strip() for part in levels.split(",")),
            numeric_mode=numeric_mode,
            device=settings.device,
            memory_format=settings.memory_format,
            compile=settings.compile,
            threads=settings.torch_threads,
        ).open()
        err().print(f"{backbone} runs as {extractor.runtime}")
        with progress() as bar:
            task = bar.add_task("features", total=len(samples))
            images = read_features(
                extractor, samples, threads=settings.decode_threads, progress=lambda done: bar.advance(task, done)
            )
        model = fit_model(images.features, extractor.spec, options, {"folder": folder.name})
    text = report(model)
    artefact = model.to_artefact()
    result: dict[str, Any] = {
        "model": name,
        "digest": artefact.digest,
        "size_bytes": len(artefact.data),
        "report": text,
    }
    if registry is None:
        assert output is not None
        write_file(output, artefact.data)
        result["file"] = str(output)
    else:
        version = registry.publish(name, artefact.data, by=who(by), note=note, report=text)
        result["version"] = version.number
        if promote:
            registry.promote(name, version.number, by=who(by), note=note)
        result["promoted"] = promote
    if as_json:
        out().print_json(json.dumps(result))
        return
    out().print(fit_table(text))
    where = f"written to {output}" if registry is None else f"version {result['version']} of model {name}"
    out().print(f"{where}, {len(artefact.data) / 1e6:.1f} MB, digest {artefact.digest[:16]}…", highlight=False)
    if registry is not None and not promote:
        out().print(f"It judges nothing yet: gaussline models promote {name} {result['version']}", highlight=False)


def fit_table(text: dict[str, Any]) -> Table:
    """The report of a fit, as a table."""
    table = Table(
        title=f"fitted on {text['training_frames']} frames, working point from {text['calibration_frames']} others: "
        f"{text['method']} at {text['stated_rate']:.2%}, threshold {text['threshold']:.4g}"
    )
    for column in ("level", "frames", "shrinkage", "condition number"):
        table.add_column(column, justify="left" if column == "level" else "right")
    for level in text["levels"]:
        table.add_row(level["level"], f"{level['count']:.0f}", f"{level['shrinkage']:.4f}", f"{level['condition']:.3g}")
    return table


def choice(kind: Any, value: str, option: str) -> Any:
    """A member of an enumeration, or a usage error that lists them."""
    try:
        return kind(value)
    except ValueError:
        raise typer.BadParameter(
            f"{value!r} is none of {', '.join(member.value for member in kind)}", param_hint=option
        ) from None
