"""`gaussline demo`: a whole line on this machine, from a fit to the ledger."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from gaussline.worker.commands.console import err, out, progress
from gaussline.worker.contract.clock import from_text
from gaussline.worker.errors import BrokerError, GausslineError, WeightsUnavailable

SEED = 7
SYNTHETIC_GOOD, SYNTHETIC_BAD = 360, 120
FIT_SHARE = 0.7
STALL_S = 60.0
"""A line that gives no verdict for so long has failed; the demo says so instead of waiting for ever."""


@dataclass(slots=True)
class _Outcome:
    """What the verdicts said of the frames whose labels are known."""

    normal: list[float] = field(default_factory=list)
    defective: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    decisions: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    latency_s: list[float] = field(default_factory=list)
    first_us: int = 0
    last_us: int = 0
    random_weights: bool = False

    def add(self, verdict: dict[str, Any]) -> None:
        """Count one verdict. The part id begins with the label."""
        label = verdict["part"].split("/", 1)[0]
        self.decisions["good" if label == "good" else "defective", verdict["decision"]] += 1
        captured, judged = from_text(verdict["captured_at"]), from_text(verdict["judged_at"])
        self.latency_s.append((judged - captured) / 1e6)
        self.first_us = min(self.first_us or captured, captured)
        self.last_us = max(self.last_us, judged)
        self.random_weights |= verdict["random_weights"]
        if verdict["score"] is not None:
            (self.normal if label == "good" else self.defective[label]).append(verdict["score"])

    @property
    def count(self) -> int:
        """Verdicts counted."""
        return len(self.latency_s)


def demo(
    data: Annotated[
        Path | None,
        typer.Option(help="Your images: good/ and bad/<defect>/, or the layout of MVTec AD. None renders parts."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Your weights, a state-dict file. None takes torchvision's own.")
    ] = None,
    backbone: Annotated[str, typer.Option(help="Backbone.")] = "mobilenet_v2",
    rate: Annotated[float, typer.Option(help="Stated false-positive rate.")] = 0.05,
    numeric_mode: Annotated[str, typer.Option(help="float32, bfloat16 or tf32.")] = "float32",
    frames: Annotated[int | None, typer.Option(min=1, help="Push at most so many frames.")] = None,
    frames_per_second: Annotated[
        float | None, typer.Option(help="Pace of the camera; none takes half of what the backbone was measured at.")
    ] = None,
) -> None:
    """Show the main job, end to end, on this machine.

    Starts a private Redis, fits a model on normal frames, publishes it as version 1, starts a worker and a producer as
    processes of their own, pushes frames the fit has not seen, and follows the verdicts.

    Example: gaussline demo --data parts/ --weights mobilenet_v2.pth --backbone mobilenet_v2
    """
    with contextlib.ExitStack() as stack:
        _stop_like_ctrl_c(stack)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gaussline-demo-")))
        _demo(stack, folder, data, weights, backbone, rate, numeric_mode, frames, frames_per_second)


def _demo(
    stack: contextlib.ExitStack,
    folder: Path,
    data: Path | None,
    weights: Path | None,
    backbone: str,
    rate: float,
    numeric_mode: str,
    frames: int | None,
    frames_per_second: float | None,
) -> None:
    from gaussline.worker.broker.embedded import EmbeddedRedis
    from gaussline.worker.broker.ledger import read_ledger
    from gaussline.worker.broker.registry import Registry
    from gaussline.worker.broker.verdicts import Verdicts
    from gaussline.worker.commands.ledger import ledger_table
    from gaussline.worker.learning.dataset import read_dataset
    from gaussline.worker.learning.fit import FitOptions, fit_model
    from gaussline.worker.learning.pipeline import BackboneOptions, read_features

    with _step("starting Redis") as say:
        server = stack.enter_context(EmbeddedRedis())
        client = server.client()
        said = client.info("server")
        say(f"version {said['redis_version']}, append-only file, fsync every second, on a private socket")
    if data is None:
        with _step("rendering parts") as say:
            data = folder / "parts"
            _render(data)
            say(f"{SYNTHETIC_GOOD} good, {SYNTHETIC_BAD} defective (scratch, spot, missing hole, blur), seed {SEED}")
    dataset = read_dataset(data, need_defects=True)
    split = dataset.split(FIT_SHARE, SEED)
    with _step(f"loading {backbone}") as say:
        try:
            extractor = BackboneOptions(backbone, weights, numeric_mode=numeric_mode).open()
        except WeightsUnavailable as error:
            if weights is not None:
                raise
            err().print(f"  [yellow]{error}[/]", highlight=False)
            err().print("  [bold red]Going on with RANDOM weights: every number of this run means nothing.[/]")
            extractor = BackboneOptions(backbone, None, random_seed=SEED, numeric_mode=numeric_mode).open()
        say(f"{extractor.spec.weights_source}, {extractor.spec.numeric_mode}, {extractor.runtime}")
    with progress() as bar:
        task = bar.add_task("fitting", total=len(split.train))
        images = read_features(extractor, split.train, progress=lambda done: bar.advance(task, done))
    model = fit_model(images.features, extractor.spec, FitOptions(rate=rate, seed=SEED), {"folder": dataset.root.name})
    registry = Registry(client, "demo")
    version = registry.publish("default", model.to_artefact().data, by="demo", note="gaussline demo")
    registry.promote("default", version.number, by="demo")
    err().print(
        f"✓ version {version.number} published and promoted: fitted on {model.info['training_frames']} normal frames, "
        f"working point from {model.info['calibration_frames']} others at a stated false-positive rate of {rate:.0%}",
        highlight=False,
    )
    pushed = _stage_frames(folder / "push", [*split.held_out, *dataset.defective], frames)
    measured = extractor.runtime.images_per_second or 40.0
    pace = frames_per_second or max(1.0, 0.5 * measured)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GAUSSLINE_")},
        "GAUSSLINE_REDIS_URL": server.url,
        "GAUSSLINE_LINE": "demo",
    }
    worker_environment = {
        **environment,
        "GAUSSLINE_HTTP_PORT": "0",
        "GAUSSLINE_LOG_LEVEL": "warning",
        "GAUSSLINE_LOG_FORMAT": "text",
        "GAUSSLINE_BATCH_MAX_FRAMES": str(extractor.runtime.batch_size),
        "GAUSSLINE_ALLOW_RANDOM_WEIGHTS": str(extractor.spec.random_weights).lower(),
        **({} if weights is None else {"GAUSSLINE_WEIGHTS": str(weights.resolve())}),
    }
    del extractor, images
    verdicts = Verdicts(client, "demo")
    with _step("starting a worker") as say:
        worker = _spawn(stack, ["worker"], worker_environment)
        _wait_for_worker(client, worker)
        say(f"process {worker.pid}")
    arguments = ["produce", str(folder / "push"), "--camera", "cam1", "--shuffle", "--quiet", "--json"]
    arguments += ["--part-id", "{label}/{stem}", "--rate", f"{pace:.1f}", "--seed", str(SEED)]
    producer = _spawn(stack, arguments, environment, subprocess.PIPE)
    err().print(
        f"✓ started a producer: process {producer.pid}, {pushed} frames at {pace:.0f} a second", highlight=False
    )
    outcome = _follow(verdicts, pushed, (worker, producer))
    if producer.wait(STALL_S):
        raise BrokerError(f"the producer ended with code {producer.returncode}")
    ledger = read_ledger(client, "demo")
    out().print(_table(outcome, rate))
    out().print(_defects_table(outcome))
    out().print(ledger_table(ledger, "demo"))
    with _step("shutting down"):
        worker.send_signal(signal.SIGTERM)
        worker.wait(STALL_S)
    if not ledger.balances or ledger.in_flight or outcome.count != pushed:
        raise BrokerError(
            f"{pushed} frames were pushed, {outcome.count} verdicts came, and the ledger says {ledger.rows}"
        )


def _render(folder: Path) -> None:
    from gaussline.producer.sources.synthetic import SyntheticParts, write_folder

    write_folder(SyntheticParts(SEED), folder, good=SYNTHETIC_GOOD, defects=SYNTHETIC_BAD)


def _stage_frames(folder: Path, samples: Sequence[Any], limit: int | None) -> int:
    """A folder of links to the frames to push, labelled by their folders as the producer reads them."""
    order = np.random.default_rng(SEED).permutation(len(samples))[:limit]
    for number in order:
        sample = samples[number]
        place = folder / "good" if sample.normal else folder / "bad" / sample.defect
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:05d}{sample.path.suffix}").symlink_to(sample.path.resolve())
    return len(order)


def _spawn(
    stack: contextlib.ExitStack, arguments: list[str], environment: dict[str, str], stdout: int | None = None
) -> subprocess.Popen[bytes]:
    """A gaussline process of its own, ended with the demo whatever happens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gaussline.worker.commands.main", *arguments],
        env=environment,
        stdout=stdout,
        start_new_session=True,  # a Ctrl-C is for the demo, which then stops everything in order
    )
    stack.callback(_end, process)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _wait_for_worker(client: Any, worker: subprocess.Popen[bytes]) -> None:
    from gaussline.worker.contract.keys import Keys

    end = time.monotonic() + STALL_S
    while not client.hlen(Keys("demo").workers):
        if worker.poll() is not None:
            raise GausslineError(f"the worker ended with code {worker.returncode}; see its message above")
        if time.monotonic() > end:
            raise GausslineError(f"the worker was not ready within {STALL_S:.0f} s")
        time.sleep(0.05)


def _follow(verdicts: Any, total: int, processes: tuple[subprocess.Popen[bytes], ...]) -> _Outcome:
    outcome = _Outcome()
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
                tally: dict[str, int] = defaultdict(int)
                for (_, decision), count in outcome.decisions.items():
                    tally[decision] += count
                bar.update(
                    task,
                    completed=outcome.count,
                    tally=f"{tally['pass']} pass, {tally['fail']} fail, {tally['not_judged']} not judged;",
                )
            worker, producer = processes
            if worker.poll() is not None or producer.poll() not in (None, 0):
                raise GausslineError("the worker or the producer ended early; see its message above")
            if time.monotonic() - last_s > STALL_S:
                raise GausslineError(f"no verdict came for {STALL_S:.0f} s: {outcome.count} of {total}")
    return outcome


def _table(outcome: _Outcome, rate: float) -> Table:
    from gaussline.worker.gaussian.calibration import clopper_pearson
    from gaussline.worker.gaussian.metrics import auroc

    title = "what the line said"
    if outcome.random_weights:
        title += " – RANDOM WEIGHTS: these numbers mean nothing"
    table = Table(title=title, show_header=False)
    table.add_column("what")
    table.add_column("value", justify="right")

    def share(kind: str, decision: str) -> str:
        total = sum(count for (k, _), count in outcome.decisions.items() if k == kind)
        return f"{outcome.decisions[kind, decision]} of {total}"

    defective = [score for scores in outcome.defective.values() for score in scores]
    seconds = (outcome.last_us - outcome.first_us) / 1e6
    p50, p99 = np.quantile(outcome.latency_s, [0.5, 0.99])
    judged = sum(count for (_, decision), count in outcome.decisions.items() if decision != "not_judged")
    table.add_row("frames", str(outcome.count))
    table.add_row("pass / fail / not judged", " / ".join(_tally(outcome, d) for d in ("pass", "fail", "not_judged")))
    table.add_row("good parts that passed", share("good", "pass"))
    if outcome.normal:
        failed = outcome.decisions["good", "fail"]
        low, high = clopper_pearson(failed, len(outcome.normal))
        realised = failed / len(outcome.normal)
        table.add_row(
            f"false-positive rate (stated {rate:.1%})", f"{realised:.1%}, 95 % interval {low:.1%} … {high:.1%}"
        )
    table.add_row("defective parts that failed", share("defective", "fail"))
    if outcome.normal and defective:
        table.add_row("image AUROC", f"{auroc(outcome.normal, defective):.4f}")
    table.add_row("frames a second", f"{judged / seconds:.1f}" if seconds > 0 else "–")
    table.add_row("capture to verdict, p50 / p99", f"{1000 * p50:.0f} / {1000 * p99:.0f} ms")
    return table


def _tally(outcome: _Outcome, decision: str) -> str:
    return str(sum(count for (_, d), count in outcome.decisions.items() if d == decision))


def _defects_table(outcome: _Outcome) -> Table:
    from gaussline.worker.gaussian.metrics import auroc

    table = Table(title="by defect" + (" – RANDOM WEIGHTS" if outcome.random_weights else ""))
    for column in ("defect", "frames", "AUROC"):
        table.add_column(column, justify="left" if column == "defect" else "right")
    for name, scores in sorted(outcome.defective.items()):
        value = f"{auroc(outcome.normal, scores):.4f}" if outcome.normal else "–"
        table.add_row(name, str(len(scores)), value)
    return table


@contextlib.contextmanager
def _step(name: str) -> Iterator[Any]:
    """One step of the demo: said when it begins, ticked off with its time when it is done."""
    notes: list[str] = []
    begin = time.monotonic()
    with err().status(f"{name} …"):
        yield notes.append
    note = f": {notes[0]}" if notes else ""
    err().print(f"✓ {name}{note} ({time.monotonic() - begin:.1f} s)", highlight=False, markup=False)


def _stop_like_ctrl_c(stack: contextlib.ExitStack) -> None:
    """SIGTERM ends the demo as Ctrl-C does: everything it started is stopped."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    stack.callback(signal.signal, signal.SIGTERM, before)
