"""`gaussline demo`: a whole line on this machine, from a fit to the ledger."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gaussline.worker.commands.child import Child
from gaussline.worker.commands.console import err, out, progress
from gaussline.worker.commands.ledger import ledger_table
from gaussline.worker.commands.outcome import Calibration, Outcome
from gaussline.worker.commands.staging import (
    LINE,
    done,
    let_nothing_interrupt,
    note,
    step,
    stop_like_ctrl_c,
    wait_for_worker,
    worker_settings,
)
from gaussline.worker.contract.verdict import Decision
from gaussline.worker.errors import BrokerError, FitError, GausslineError, WeightsUnavailable

EPILOG = """\b
Examples:
  gaussline demo
  gaussline demo --data parts/ --weights mobilenet_v2.pth --backbone mobilenet_v2
  gaussline demo --frames 200 --keep-open

Everything it starts, it stops, on Ctrl-C too. Settings of your own line (GAUSSLINE_…) play no part in it."""
GOOD_PARTS, PARTS_A_DEFECT = 360, 30
FIT_SHARE = 0.7
RATE = 0.05
STALL_S = 60.0
"""A line that gives no verdict for so long has failed; the demo says so instead of waiting for ever."""


@dataclass(frozen=True, slots=True)
class _Options:
    data: Path | None
    weights: Path | None
    backbone: str
    rate: float | None
    numeric_mode: str
    frames: int | None
    pace: float | None
    seed: int
    keep_open: bool


def demo(
    data: Annotated[
        Path | None,
        typer.Option(help="Your images: good/ and bad/<defect>/, or the layout of MVTec AD. None renders parts."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Your weights, a state-dict file. None takes torchvision's own.")
    ] = None,
    backbone: Annotated[str, typer.Option(help="Backbone.")] = "mobilenet_v2",
    rate: Annotated[
        float | None,
        typer.Option(help="Stated false-positive rate. (default: 0.05, or the least the images allow)"),
    ] = None,
    numeric_mode: Annotated[str, typer.Option(help="float32, bfloat16 or tf32.")] = "float32",
    frames: Annotated[int | None, typer.Option(min=1, help="Push at most so many frames.")] = None,
    frames_per_second: Annotated[
        float | None,
        typer.Option(min=0.1, help="Pace of the camera; none takes half of what the backbone was measured at."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of rendered parts, of every split and order.")] = 7,
    keep_open: Annotated[
        bool, typer.Option("--keep-open", help="Leave the line running at the end, until Ctrl-C.")
    ] = False,
) -> None:
    """Show the main job, end to end, on this machine.

    Starts a private Redis, fits a model on normal frames, publishes it as version 1, starts a worker and a producer as
    processes of their own, pushes frames the fit has not seen, and follows the verdicts.
    """
    options = _Options(data, weights, backbone, rate, numeric_mode, frames, frames_per_second, seed, keep_open)
    with contextlib.ExitStack() as stack:
        stop_like_ctrl_c(stack)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gaussline-demo-")))
        try:
            _run(stack, folder, options)
        finally:
            let_nothing_interrupt()


def _run(stack: contextlib.ExitStack, folder: Path, options: _Options) -> None:
    from gaussline.worker.broker.embedded import EmbeddedRedis
    from gaussline.worker.broker.ledger import read_ledger
    from gaussline.worker.broker.registry import Registry
    from gaussline.worker.broker.verdicts import Verdicts
    from gaussline.worker.learning.dataset import read_dataset
    from gaussline.worker.learning.fit import FitOptions, fit_model
    from gaussline.worker.learning.pipeline import read_features

    with step("starting Redis") as say:
        server = stack.enter_context(EmbeddedRedis())
        client = server.client()
        say(f"version {client.info('server')['redis_version']}, append-only file, fsync every second, private socket")
    dataset = read_dataset(options.data or _render(folder / "parts", options.seed))
    split = dataset.split(FIT_SHARE, options.seed)
    note(
        f"{len(split.train)} good parts to fit on; to push, unseen by the fit: {len(split.held_out)} good, "
        f"{len(dataset.defective)} defective ({', '.join(dataset.defects) or 'none'})"
    )
    fitting = FitOptions(rate=_rate(options.rate, len(split.train)), seed=options.seed)
    with step(f"loading {options.backbone}") as say:
        extractor = _open_backbone(options)
        say(f"weights {extractor.spec.weights_source}, {extractor.spec.numeric_mode}, {extractor.runtime}")
    begin = time.monotonic()
    with progress() as bar:
        task = bar.add_task("fitting", total=len(split.train))
        images = read_features(extractor, split.train, progress=lambda done: bar.advance(task, done))
    model = fit_model(images.features, extractor.spec, fitting, {"folder": dataset.root.name})
    registry = Registry(client, LINE)
    version = registry.publish("default", model.to_artefact().data, by="demo", note="gaussline demo")
    registry.promote("default", version.number, by="demo")
    calibration = Calibration(fitting.rate, int(model.info["calibration_frames"]))
    done(
        f"fitted on {model.info['training_frames']} good parts, working point at a stated false-positive rate of "
        f"{fitting.rate:.3g} from {calibration.frames} others; published and promoted as version {version.number}",
        begin,
    )
    pushed = _stage(folder / "push", [*split.held_out, *dataset.defective], options)
    pace = options.pace or max(1.0, 0.5 * (extractor.runtime.images_per_second or 40.0))
    plain = {name: value for name, value in os.environ.items() if not name.startswith("GAUSSLINE_")}
    environment = plain | {"GAUSSLINE_REDIS_URL": server.url, "GAUSSLINE_LINE": LINE}
    port = _free_port() if options.keep_open else 0
    settings = environment | worker_settings(extractor, options.weights, port)
    del extractor, images
    with step("starting a worker") as say:
        worker = stack.enter_context(Child("worker", ["worker"], settings))
        wait_for_worker(client, worker)
        say(f"process {worker.pid}")
    with step("starting a producer") as say:
        arguments = ["produce", str(folder / "push"), "--camera", "cam1", "--shuffle", "--quiet", "--json"]
        arguments += ["--part-id", "{label}/{stem}", "--rate", f"{pace:.1f}", "--seed", str(options.seed)]
        producer = stack.enter_context(Child("producer", arguments, environment))
        say(f"process {producer.pid}, {pushed} frames at {pace:.1f} a second")
    outcome = _follow(Verdicts(client, LINE), pushed, (worker, producer))
    producer.wait(STALL_S)
    ledger = read_ledger(client, LINE)
    for table in (outcome.table(calibration, pace), outcome.defects_table(), ledger_table(ledger, LINE)):
        if table is not None:
            out().print(table)
    if not ledger.balances or ledger.in_flight or outcome.count != pushed:
        raise BrokerError(
            f"{pushed} frames were pushed, {outcome.count} verdicts came, and the ledger says {ledger.rows}"
        )
    if options.keep_open:
        _keep_open(environment, port, worker)
    with step("shutting down"):
        worker.end()
        worker.check()


def _render(folder: Path, seed: int) -> Path:
    from gaussline.producer.sources.synthetic import DEFECTS, SyntheticParts, write_folder

    with step("rendering parts") as say:
        write_folder(SyntheticParts(seed), folder, good=GOOD_PARTS, defects=PARTS_A_DEFECT)
        kinds = ", ".join(name.replace("_", " ") for name in DEFECTS)
        say(f"{GOOD_PARTS} good, {PARTS_A_DEFECT} each with {kinds}; seed {seed}")
    return folder


def _rate(stated: float | None, good: int) -> float:
    """The false-positive rate to ask for. Raises FitError where the one that was stated needs more images."""
    from gaussline.worker.gaussian.calibration import frames_needed
    from gaussline.worker.learning.fit import FitOptions

    share = FitOptions().calibration_share
    held = round(share * good)
    rate = RATE if stated is None else stated
    if held >= frames_needed(rate):
        return rate
    least = float(np.ceil(1000.0 / (held + 1)) / 1000.0)
    if stated is not None or least >= 0.5:
        raise FitError(
            f"a false-positive rate of {rate:g} needs {frames_needed(rate)} calibration frames; {share:.0%} of the "
            f"{good} good parts to fit on are {held}: give more good images"
            + (f", or state a rate of at least {least:g}" if least < 0.5 else "")
        )
    note(f"{held} calibration frames are too few for a false-positive rate of {RATE:g}: it is {least:g} in this run")
    return least


def _open_backbone(options: _Options) -> Any:
    from gaussline.worker.learning.pipeline import BackboneOptions

    try:
        return BackboneOptions(options.backbone, options.weights, numeric_mode=options.numeric_mode).open()
    except WeightsUnavailable as error:
        if options.weights is not None:
            raise
        err().print(f"  {error}", style="yellow", highlight=False, markup=False, soft_wrap=True)
        err().print("  Going on with RANDOM weights: every number of this run means nothing.", style="bold red")
    return BackboneOptions(options.backbone, None, random_seed=options.seed, numeric_mode=options.numeric_mode).open()


def _stage(folder: Path, samples: Sequence[Any], options: _Options) -> int:
    """A folder of links to the frames to push, labelled by their folders as the producer reads them; how many."""
    if not samples:
        raise FitError("no image is left to push: the folder has no good part that the fit has not seen")
    order = np.random.default_rng(options.seed).permutation(len(samples))[: options.frames]
    for number in order:
        sample = samples[number]
        place = folder / sample.defect if sample.normal else folder / "bad" / sample.defect
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:05d}{sample.path.suffix}").symlink_to(sample.path.resolve())
    return len(order)


def _follow(verdicts: Any, total: int, children: Sequence[Child]) -> Outcome:
    outcome = Outcome()
    position, last_s = "0-0", time.monotonic()
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[tally]} left"),
        TimeRemainingColumn(),
        console=err(),
    )
    with bar:
        task = bar.add_task("verdicts", total=total, tally="")
        while outcome.count < total:
            entries = verdicts.read(position, block_s=0.25)
            for entry_id, verdict in entries:
                position = entry_id
                outcome.add(verdict)
            if entries:
                last_s = time.monotonic()
                tally = f"{outcome.of(Decision.PASS)} pass, {outcome.of(Decision.FAIL)} fail"
                tally += f", {outcome.of(Decision.NOT_JUDGED)} not judged;"
                bar.update(task, completed=outcome.count, tally=tally)
            for child in children:
                child.check()
            if time.monotonic() - last_s > STALL_S:
                raise GausslineError(f"no verdict came for {STALL_S:.0f} s: {outcome.count} of {total}")
    return outcome


def _keep_open(environment: Mapping[str, str], port: int, worker: Child) -> None:
    """Leave the line to whoever wants to look at it."""
    url = shlex.quote(environment["GAUSSLINE_REDIS_URL"])
    note("the line stays open until Ctrl-C; in another terminal:")
    for text in (
        f"export GAUSSLINE_REDIS_URL={url} GAUSSLINE_LINE={LINE}",
        "gaussline verdicts --since 1h --only fail",
        "gaussline produce --camera cam2 synthetic --rate 5",
        f"curl http://127.0.0.1:{port}/metrics",
    ):
        err().print(f"    {text}", highlight=False, markup=False, soft_wrap=True)
    with contextlib.suppress(KeyboardInterrupt):
        while worker.running:
            time.sleep(0.2)
    worker.check()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
