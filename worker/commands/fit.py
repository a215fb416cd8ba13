"""`gaussline fit`: normal frames in, a model version out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from gaussline.worker.commands.console import err, out, progress
from gaussline.worker.commands.options import load_settings, who
from gaussline.worker.commands.rendered import rendered
from gaussline.worker.commands.signed_files import write_signed
from gaussline.worker.contract.keys import check_name
from gaussline.worker.errors import SourceError
from gaussline.worker.settings import DECODERS

DEFAULT_GRID = 3
"""Why, and what was measured: docs/defaults.md."""
EPILOG = """\b
Examples:
  gaussline fit parts/ --rate 0.02 --promote               two good parts in a hundred may fail
  gaussline fit parts/ --holdout 0.2                       see what rate comes of it, on frames held out of all
  gaussline fit parts/ --suspects 20 --output try.model    which training images may be defective, with heat maps
  gaussline fit parts/ --robust --method robust --rate 0.05     nobody has cleaned the folder
  gaussline fit parts/ --method pareto --rate 0.0005       rarer than one in the calibration frames
  gaussline fit parts/ --grid 1                            the paper's own setting
"""


def fit(
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="Folder with good/ (and bad/<defect>/), or train/good in the layout of MVTec AD; 'synthetic' renders "
            "parts, as 'gaussline produce synthetic' does."
        ),
    ] = None,
    events: Annotated[
        str | None,
        typer.Option(help="Instead of a folder: recorded feature events of this model (GAUSSLINE_FEATURES=all)."),
    ] = None,
    name: Annotated[str, typer.Option("--name", "-n", help="Name of the model.")] = "default",
    backbone: Annotated[
        str,
        typer.Option(
            help="Backbone; a wrong one lists them. Several joined by + are an ensemble: mobilenet_v2+squeezenet1_1."
        ),
    ] = "mobilenet_v2",
    weights: Annotated[
        Path | None,
        typer.Option(
            help="State-dict file of its weights, or a folder of files named after their backbones; default "
            "GAUSSLINE_WEIGHTS; none takes torchvision's own."
        ),
    ] = None,
    rate: Annotated[float, typer.Option(help="Stated false-positive rate: share of good parts that may fail.")] = 0.01,
    method: Annotated[
        str,
        typer.Option(
            help="Working point: conformal, empirical, cross_conformal, pareto (rates below 1/n), chi_squared, "
            "hotelling (both of one level) or robust (unnoticed defects among the frames)."
        ),
    ] = "conformal",
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
    grid: Annotated[
        int,
        typer.Option(
            help="Cut levels of at most 512 channels into grid x grid regions, each with its own Gaussian; 1 is the "
            "paper's: the whole picture.",
            min=1,
            max=16,
        ),
    ] = DEFAULT_GRID,
    views: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated views whose features are averaged, each a pass of the backbone: identity, hflip, "
            "vflip, rot90, rot180, rot270, brightness:F."
        ),
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            help="Fit on turned and relit copies of the training images too, drawn by the seed: comma-separated hflip, "
            "vflip, rot90, rot180, rot270, brightness:LOW..HIGH. Copies never calibrate."
        ),
    ] = None,
    copies: Annotated[int, typer.Option(help="Augmented copies of each training image.", min=1, max=100)] = 4,
    input_size: Annotated[
        int | None, typer.Option(help="Side of the network's input in pixels; none takes the native one.", min=32)
    ] = None,
    folds: Annotated[int, typer.Option(help="Folds of cross_conformal.", min=2)] = 5,
    robust: Annotated[
        bool, typer.Option("--robust", help="Leave out frames that look defective; working point: --method robust.")
    ] = False,
    suspects: Annotated[
        int, typer.Option(help="List so many of the most suspicious training images, with heat maps.", min=0)
    ] = 0,
    suspects_to: Annotated[
        Path, typer.Option(help="Folder for the heat maps of the suspects.", file_okay=False)
    ] = Path("suspects"),
    holdout: Annotated[
        float,
        typer.Option(
            help="Share of the normal frames that neither fits nor calibrates, but shows the realised rate. Normal "
            "test images (test/good) always do.",
            min=0.0,
            max=0.9,
        ),
    ] = 0.0,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable images out; they are listed.")] = False,
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

    A level is as far out as its farthest region, a frame as its levels together (docs/defaults.md says why, and what
    was measured); '--grid 1' is the paper's own setting.

    From recorded events, frames that passed teach, and the reservoir calibrates: a share of all frames, drawn before
    they were scored (GAUSSLINE_RESERVOIR_SHARE), failed ones included. Defective parts in it make the working point
    milder: with more of them than the stated rate, fit on a folder of parts that are known to be good.
    """
    from gaussline.worker.broker.client import open_redis
    from gaussline.worker.broker.registry import Registry
    from gaussline.worker.broker.seal import open_seal
    from gaussline.worker.gaussian.calibration import Method
    from gaussline.worker.gaussian.combination import Rule
    from gaussline.worker.gaussian.covariance import Estimator
    from gaussline.worker.gaussian.density import Projection
    from gaussline.worker.learning.augmentation import Augmentation
    from gaussline.worker.learning.fit import FitOptions, fit_model, report
    from gaussline.worker.learning.pipeline import BackboneOptions
    from gaussline.worker.learning.recorded import read_recorded

    settings = load_settings(redis_url=redis_url, line=line)
    check_name("model", name)  # before minutes are spent on a fit that nobody could store
    options = FitOptions(
        rate=rate,
        calibration_share=calibration_share,
        method=choice(Method, method, "--method"),
        estimator=choice(Estimator, estimator, "--estimator"),
        projection=choice(Projection, projection, "--projection"),
        variance=variance,
        rule=choice(Rule, rule, "--rule"),
        seed=seed,
        folds=folds,
        robust=robust,
    )
    augmentation = None if augment is None else Augmentation.parse(augment, copies, seed)
    client: Any = None
    registry = None
    if output is not None:
        if not output.parent.is_dir():
            raise SourceError(f"{output} cannot be written: {output.parent} is no folder")
    else:
        client = open_redis(settings)
        registry = Registry(client, settings.line, seal=open_seal(settings))
        registry.models()  # before minutes are spent on a fit that nobody can store
    if events is not None:
        if folder is not None or output is not None or augmentation is not None or holdout or suspects:
            raise typer.BadParameter(
                "takes the line's own record: give no folder, --output, --augment, --holdout or --suspects",
                param_hint="--events",
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
        backbones = BackboneOptions(
            backbone,
            weights or settings.weights,
            levels=_words(levels) or None,
            input_size=input_size,
            numeric_mode=numeric_mode,
            grid=grid,
            views=_words(views),
            device=settings.device,
            memory_format=settings.memory_format,
            compile=settings.compile,
            threads=settings.torch_threads,
        )
        threads = settings.decode_threads or DECODERS
        with rendered(folder) as pictures:
            model = _fit_folder(
                pictures, backbones, options, augmentation, holdout, skip_bad, threads, suspects, suspects_to
            )
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
        write_signed(output, artefact.data, open_seal(settings))
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


def _fit_folder(
    folder: Path,
    backbones: Any,
    options: Any,
    augmentation: Any,
    holdout: float,
    skip_bad: bool,
    threads: int,
    suspects: int,
    suspects_to: Path,
) -> Any:
    """Read a folder's normal images, fit, and say what a person should know."""
    import numpy as np

    from gaussline.worker.learning.fit import fit_model, realised, require_frames
    from gaussline.worker.learning.normal_images import look, read_normal
    from gaussline.worker.learning.suspects import write_suspects

    count = look(folder, skip_bad=skip_bad, threads=threads)
    require_frames(count - round(holdout * count), options)
    extractor = backbones.open()
    err().print(f"{backbones.name} runs as {extractor.runtime}")
    with progress() as bar:
        task = bar.add_task("features", total=None, visible=False)
        images = read_normal(
            folder,
            extractor,
            skip_bad=skip_bad,
            threads=threads,
            augmentation=augmentation,
            progress=lambda done, total: bar.update(task, advance=done, total=total, visible=True),
        )
    for path, why in images.skipped:
        err().print(f"skipped {path}: {why}", highlight=False, markup=False)
    for warning in images.warnings:
        err().print(f"[yellow]warning:[/] {warning}")
    count = len(images.samples)
    order = np.random.default_rng([options.seed, 2]).permutation(count)
    aside, own = order[: round(holdout * count)], np.sort(order[round(holdout * count) :])
    err().print(f"{own.size} normal frames in {folder}" + (f", {aside.size} held out" if aside.size else ""))
    features = [level[own] for level in images.features]
    copies = [[level[own] for level in copy] for copy in images.copies]
    info: dict[str, Any] = {"folder": folder.name, "skipped": len(images.skipped)}
    if augmentation is not None:
        info["augmentation"] = augmentation.to_json()
    model = fit_model(features, extractor.spec, options, info, digests=images.digests[own], copies=copies)
    shown = [level[aside] for level in images.features]
    if images.test is not None:
        shown = [np.concatenate(both) for both in zip(shown, images.test, strict=True)]
    if len(shown[0]):
        model = replace(model, info=dict(model.info) | realised(model.judge(shown).failed))
    if suspects:
        own_samples = [images.samples[row] for row in own]
        found = write_suspects(extractor, own_samples, features, options, suspects, suspects_to, copies)
        err().print(suspects_table(found, suspects_to))
        model = replace(model, info=dict(model.info) | {"suspects": [one.to_dict() for one in found]})
    return model


def _words(text: str | None) -> tuple[str, ...]:
    return () if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def suspects_table(found: Any, folder: Path) -> Table:
    """The most suspicious training images, worst first."""
    table = Table(title=f"the most suspicious training images; heat maps in {folder}/")
    for column in ("image", "score", "p-value among the others", "left out by --robust"):
        table.add_column(column, justify="left" if column == "image" else "right")
    for one in found:
        table.add_row(Text(str(one.path)), f"{one.score:.4g}", f"{one.p_value:.2g}", "yes" if one.left_out else "no")
    return table


def fit_table(text: dict[str, Any]) -> Group:
    """The report of a fit: what it holds, and its levels."""
    title = (
        f"fitted on {text['training_frames']} frames, working point from {text['calibration_frames']} "
        f"{'of them' if text['method'] == 'cross_conformal' else 'others'}: {text['method']} at "
        f"{text['stated_rate']:.3%}, threshold {text['threshold']:.4g}\n{text['promise']}"
    )
    if "realised_rate" in text:
        low, high = text["realised_interval"]
        title += (
            f"\nstated {text['stated_rate']:.3%}, realised {text['realised_rate']:.2%} of {text['held_out_frames']} "
            f"unseen normal frames, 95 % interval {low:.2%} … {high:.2%}"
        )
    elif "events" not in text:
        title += "\nnot held against unseen normal frames: --holdout, or normal test images (test/good), do that"
    if "interval" in text:
        low, high = text["interval"]
        if text["method"] == "pareto":
            title += f"\n95 % interval of the threshold, if the tail goes on so: {low:.4g} … {high:.4g}"
        else:
            title += f"\n95 % interval of the realised rate, if the law is right: {low:.2%} … {high:.2%}"
    if "warning" in text:
        title += f"\nwarning: {text['warning']}"
    return Group(Text(title), levels_table(text["levels"]))


def levels_table(levels: list[dict[str, Any]]) -> Table:
    """A level a row, of a level cut into regions the worst of its numbers."""
    table = Table()
    for column in ("level", "regions", "frames", "shrinkage", "condition number"):
        table.add_column(column, justify="left" if column == "level" else "right")
    whole: dict[str, list[dict[str, Any]]] = {}
    for level in levels:
        whole.setdefault(level["level"].partition("@")[0], []).append(level)
    for name, parts in whole.items():
        shrinkage, condition = (max(part[key] for part in parts) for key in ("shrinkage", "condition"))
        table.add_row(name, str(len(parts)), f"{parts[0]['count']:.0f}", f"{shrinkage:.4f}", f"{condition:.3g}")
    return table


def choice(kind: Any, value: str, option: str) -> Any:
    """A member of an enumeration, or a usage error that lists them."""
    try:
        return kind(value)
    except ValueError:
        raise typer.BadParameter(
            f"{value!r} is none of {', '.join(member.value for member in kind)}", param_hint=option
        ) from None
