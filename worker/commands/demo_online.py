"""`gaussline demo-online`: a line that drifts, a frozen model and one that learns, on this machine, in two minutes."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image
from rich.live import Live
from rich.table import Table

from gaussline.worker.commands.child import Child
from gaussline.worker.commands.console import err, out
from gaussline.worker.commands.drift_story import DEFECT, RATE, WINDOW, Plot, Tally, draw, table
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
from gaussline.worker.errors import BrokerError, Conflict, GausslineError, NotFound, WeightsUnavailable

EPILOG = """\b
Examples:
  gaussline demo-online
  gaussline demo-online --weights mobilenet_v2.pth --output drift.svg
  gaussline demo-online --frames 2400 --frames-per-second 120 --input-size 64      (a quick look)

Everything it starts, it stops, on Ctrl-C too."""
MODEL = "default"
STALL_S = 60.0
FIT_FRAMES = 700
CANARY_SHARE, CANARY_S, CANARY_FRAMES = 0.5, 3.0, 60
RULES = "extra_fails > 10%"
QUARANTINE_S = 2.0


def demo_online(
    weights: Annotated[
        Path | None, typer.Option(help="Your weights, a state-dict file. None takes torchvision's own.")
    ] = None,
    backbone: Annotated[str, typer.Option(help="Backbone.")] = "mobilenet_v2",
    input_size: Annotated[int, typer.Option(min=32, help="Side of the pictures, in pixels.")] = 96,
    frames: Annotated[int, typer.Option(min=1_600, help="Frames to push.")] = 4_400,
    frames_per_second: Annotated[
        float | None, typer.Option(min=1, help="Pace of the camera; none takes what suits this machine, 45 at most.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the plot goes.")] = Path("demo-online.svg"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the rendered parts.")] = 7,
) -> None:
    """Show online learning, end to end: drift, a burst of defects, a canary that is promoted and one that is not.

    The lamp of a rendered line dims. Version 1, frozen, gives its opinion of every frame as a shadow. A learner
    proposes versions; each is tried as a canary, and the roll-out judge promotes it. Then bad parts come, many in a
    row, which must not be learnt; then somebody puts version 1 on trial again, and the judge rolls it back. Producer,
    worker, learner and judge are processes of their own, on a private Redis. At the end a plot is saved.
    """
    with contextlib.ExitStack() as stack:
        stop_like_ctrl_c(stack)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gaussline-demo-")))
        try:
            _run(stack, folder, Plot(frames), weights, backbone, input_size, frames_per_second, output, seed)
        finally:
            let_nothing_interrupt()


def _run(
    stack: contextlib.ExitStack,
    folder: Path,
    plot: Plot,
    weights: Path | None,
    backbone: str,
    size: int,
    pace: float | None,
    output: Path,
    seed: int,
) -> None:
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
        say(f"version {client.info('server')['redis_version']}")
    with step("rendering parts") as say:
        _render(folder, plot, size, seed)
        say(f"{FIT_FRAMES} good ones to fit on, {plot.frames} to push, of {size} pixels; seed {seed}")
    with step(f"loading {backbone}") as say:
        extractor = _open(backbone, weights, size, seed)
        say(f"weights {extractor.spec.weights_source}, {extractor.runtime}")
    began = time.monotonic()
    samples = read_dataset(folder / "fit").normal
    images = read_features(extractor, samples)
    fitted = fit_model(images.features, extractor.spec, FitOptions(rate=RATE, seed=seed))
    registry = Registry(client, LINE)
    first = registry.publish(MODEL, fitted.to_artefact().data, by="demo", note="the morning's fit")
    registry.promote(MODEL, first.number, by="demo")
    registry.promote(MODEL, first.number, by="demo", channel="shadow", note="frozen, to compare with")
    done(f"fitted version {first.number} at a stated false-positive rate of {RATE:g}; a shadow of it stays", began)
    if pace is None:
        pace = min(45.0, max(10.0, 0.35 * (extractor.runtime.images_per_second or 40.0)))
    settings = {name: value for name, value in os.environ.items() if not name.startswith("GAUSSLINE_")}
    settings |= {"GAUSSLINE_REDIS_URL": server.url, "GAUSSLINE_LINE": LINE, "OMP_NUM_THREADS": "1"}
    settings |= worker_settings(extractor, weights, 0) | _learning(plot)
    random_weights = extractor.spec.random_weights
    del extractor, images
    with step("starting worker, learner and roll-out judge") as say:
        children = [stack.enter_context(Child("worker", ["worker"], settings))]
        wait_for_worker(client, children[0])
        children.append(stack.enter_context(Child("learner", ["learn", MODEL, "--with-parent"], settings)))
        children.append(stack.enter_context(Child("judge", ["judge"], settings)))
        say("processes " + ", ".join(str(child.pid) for child in children))
    arguments = ["produce", str(folder / "push"), "--camera", "cam1", "--quiet", "--rate", f"{pace:.1f}"]
    producer = stack.enter_context(Child("producer", [*arguments, "--part-id", "{stem}"], settings))
    note(f"the camera pushes {pace:.0f} frames a second, for about {plot.frames / pace:.0f} s")
    line = _Line(client, registry, plot, first.number)
    tally = line.follow(Verdicts(client, LINE), (*children, producer))
    producer.wait(STALL_S)
    ledger = read_ledger(client, LINE)
    if not ledger.balances or len(tally.number) != plot.frames:
        raise BrokerError(f"{plot.frames} frames were pushed, {len(tally.number)} verdicts came: {ledger.rows}")
    out().print(table(tally, plot, random_weights))
    output.write_text(draw(tally, plot, random_weights), "utf-8")
    note(f"the plot is saved: {output}")
    with step("shutting down"):
        for child in reversed(children):
            child.end()


def _learning(plot: Plot) -> dict[str, str]:
    """A day of a line in two minutes: every span of the learner is shorter."""
    return {
        "GAUSSLINE_FEATURES": "all",
        "GAUSSLINE_RESERVOIR_SHARE": "0.3",
        "GAUSSLINE_LEARN_BLOCK": "32",
        "GAUSSLINE_LEARN_GATE_P": "0.1",
        "GAUSSLINE_LEARN_QUARANTINE_S": f"{QUARANTINE_S:g}",
        "GAUSSLINE_LEARN_HALF_LIFE_FRAMES": str(plot.frames // 10),
        "GAUSSLINE_LEARN_PROPOSE_FRAMES": str(max(90, plot.frames // 36)),
        "GAUSSLINE_LEARN_RESERVOIR_FRAMES": "200",
        "GAUSSLINE_LEARN_CHECKPOINT_S": "5",
        "GAUSSLINE_LEARN_WATCH_EVERY_S": "1",
    }


def _render(folder: Path, plot: Plot, size: int, seed: int) -> None:
    from gaussline.producer.sources.synthetic import SyntheticParts

    parts, bad = SyntheticParts(seed, size=size), SyntheticParts(seed + 1, size=size)
    (folder / "fit" / "good").mkdir(parents=True)
    (folder / "push").mkdir()
    for number in range(FIT_FRAMES):
        image = parts.render(plot.frames + number, "good").image
        Image.fromarray(image).save(folder / "fit" / "good" / f"{number:05d}.png", compress_level=1)
    for number in range(plot.frames):
        which = plot.bad(number)
        source, index, label = (parts, number, "good") if which is None else (bad, which, DEFECT)
        source.brightness = plot.strength(number)
        image = source.render(index, label).image
        Image.fromarray(image).save(folder / "push" / f"{number:05d}-{label}.png", compress_level=1)


def _open(backbone: str, weights: Path | None, size: int, seed: int) -> Any:
    from gaussline.worker.learning.pipeline import BackboneOptions

    try:
        return BackboneOptions(backbone, weights, input_size=size).open()
    except WeightsUnavailable as error:
        if weights is not None:
            raise
        err().print(f"  {error}", style="yellow", highlight=False, markup=False, soft_wrap=True)
        err().print("  Going on with RANDOM weights: every number of this run means nothing.", style="bold red")
    return BackboneOptions(backbone, None, input_size=size, random_seed=seed).open()


class _Line:
    """The line while it runs, and what an operator does on it."""

    def __init__(self, client: Any, registry: Any, plot: Plot, first: int) -> None:
        self._client, self._registry, self._plot = client, registry, plot
        self._first, self._tried, self._trial = first, first, 0
        self._relapsed = False
        self._said = "0-0"
        self._looked_s = 0.0
        self._passed = [(at, text) for at, text in ((plot.dims[0], "the lamp dims"), (plot.burst[0], "bad parts"))]

    def follow(self, verdicts: Any, children: tuple[Child, ...]) -> Tally:
        """Until every frame has its verdict."""
        tally, position, last_s = Tally(), "0-0", time.monotonic()
        with Live(console=err(), refresh_per_second=2, transient=True, get_renderable=lambda: self._screen(tally)):
            while len(tally.number) < self._plot.frames:
                entries = verdicts.read(position, block_s=0.25)
                for entry_id, verdict in entries:
                    position = entry_id
                    tally.add(verdict)
                if entries:
                    last_s = time.monotonic()
                for child in children:
                    child.check()
                if time.monotonic() - last_s > STALL_S:
                    raise GausslineError(f"no verdict came for {STALL_S:.0f} s: {len(tally.number)}")
                while self._passed and tally.last >= self._passed[0][0]:
                    tally.mark(self._passed.pop(0)[1])
                if time.monotonic() - self._looked_s >= 0.25:
                    self._looked_s = time.monotonic()
                    self._hear(tally)
                    self._roll(tally)
        return tally

    def _hear(self, tally: Tally) -> None:
        """Alarms of the learner."""
        import json

        from gaussline.worker.contract.keys import Keys

        for entry, fields in self._client.xrange(Keys(LINE).drift(MODEL), min=f"({self._said}"):
            self._said = entry.decode()
            said = json.loads(fields[b"json"])
            if fields[b"kind"] == b"alarm" and said["alarm"] in ("scores", "failures"):
                tally.mark("drift alarm: learning freezes")
            elif fields[b"kind"] == b"proposal" and said["failed"]:
                note(str(said["text"]))

    def _roll(self, tally: Tally) -> None:
        """Put what is new on trial, and say how a trial ended."""
        from gaussline.worker.contract.trial import CANARY, Selection, Trial

        stable, canary = self._registry.pointer(MODEL), self._registry.pointer(MODEL, CANARY)
        if self._trial and canary is None:
            promoted = stable.version == self._trial
            if promoted:
                tally.version = self._trial
            tally.mark(f"v{self._trial} {'promoted' if promoted else 'rolled back'}")
            self._trial = 0
        relapse = tally.last >= self._plot.relapse and not self._relapsed
        if relapse and canary is not None:
            try:
                self._registry.remove(MODEL, CANARY, by="demo", note="undecided so far; another is to be tried")
            except (Conflict, NotFound):  # the judge was faster: how it ended is seen at the next look
                return
            tally.mark(f"v{self._trial} taken off trial")
            self._trial, canary = 0, None
        if self._trial or canary is not None:
            return
        newest, why = self._registry.versions(MODEL)[-1].number, "proposed by the learner"
        if relapse:
            self._relapsed, newest, why = True, self._first, "somebody puts the old version on trial"
        elif newest <= self._tried or tally.last >= self._plot.relapse:
            return
        self._tried = max(self._tried, newest)
        self._registry.promote(
            MODEL,
            newest,
            by="demo",
            channel=CANARY,
            note=why,
            selection=Selection(CANARY_SHARE),
            trial=Trial(CANARY_S, RULES, CANARY_FRAMES),
        )
        self._trial = newest
        if newest == self._first:
            tally.mark(f"v{newest} on trial again")

    def _screen(self, tally: Tally) -> Table:
        table = Table(title=f"frame {tally.last} of {self._plot.frames}; lamp at {self._plot.strength(tally.last):.0%}")
        for column in ("false positives of the newest", "online", "frozen version 1", "judging"):
            table.add_column(column, justify="right")
        start = tally.last - WINDOW
        shares = [tally.share(start, tally.last + 1, good=True, frozen=frozen) for frozen in (False, True)]
        shown = ["–" if share != share else f"{share:.1%}" for share in shares]
        table.add_row(f"{WINDOW} frames", *shown, f"version {tally.version}")
        return table
