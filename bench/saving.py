"""The part `saving` of `bench.swap`: what checkpoints and loads at EfficientNet-B4 sizes cost the verdict path.

A learner of another model works beside the worker, on the same Redis and the same cores: it folds a block of events at
B4 sizes, so that every number of its moments is another, and checkpoints, again and again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.learner import FIT_FRAMES, RATE, SPEC, by_level, events, features, fill
from bench.sides import SEED
from bench.site import VERSIONS, Seen, Site, working
from gaussline.worker.broker.client import connect
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.broker.registry import Registry
from gaussline.worker.commands.priority import give_way
from gaussline.worker.contract.frame import Frame
from gaussline.worker.contract.model import Model
from gaussline.worker.learning.fit import FitOptions, fit_model
from gaussline.worker.learning.policy import Policy
from gaussline.worker.learning.session import Rhythm, Session
from gaussline.worker.settings import Settings

LINE, MODEL = "swap", "b4"
UNDISTURBED, CHECKPOINTS, BOTH = "undisturbed", "checkpoints", "checkpoints and loads"


@dataclass(slots=True)
class Saver:
    """The learner's process, told by messages what to do."""

    said: Any

    def work(self) -> None:
        """Fold and checkpoint from now on."""
        self.said.send("work")

    def rest(self) -> tuple[list[float], list[int]]:
        """Let it pause: seconds and bytes of the checkpoints since it began to work."""
        self.said.send("rest")
        found: tuple[list[float], list[int]] = self.said.recv()
        return found


def save_main(url: str, every_s: float, said: Any) -> None:
    """Body of the learner's process."""
    give_way(Settings.load({}).learn_nice)
    client = connect(url, timeout_s=60.0)
    model = fit_model(by_level(features(FIT_FRAMES, 2)), SPEC, FitOptions(rate=RATE))
    registry = Registry(client, LINE)
    version = registry.publish(MODEL, model.to_artefact().data, by="bench")
    registry.promote(MODEL, version.number, by="bench")
    policy = Policy(quarantine_s=0.0, propose_frames=None, watch=False)
    session = Session(client, LINE, MODEL, policy, owner="bench", rhythm=Rhythm(1e9, 600.0))
    session.open()
    rows, turn = features(policy.block, 3), 0
    seconds: list[float] = []
    sizes: list[int] = []
    said.send("ready")
    resting = True
    while True:
        if said.poll(None if resting else 0.0):
            order = said.recv()
            if order == "end":
                break
            resting = order == "rest"
            if resting:
                said.send((seconds, sizes))
            seconds, sizes = [], []
            continue
        began = time.monotonic()
        fill(client, events(model, version.digest, rows, turn * policy.block), LINE, MODEL)
        session.step(began)
        saved = time.monotonic()
        sizes.append(session.checkpoint().size_bytes)
        seconds.append(time.monotonic() - saved)
        turn += 1
        time.sleep(max(0.0, began + every_s - time.monotonic()))
    session.close()


@contextmanager
def saver(url: str, every_s: float) -> Iterator[Saver]:
    """A learner that is ready, and rests."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=save_main, args=(url, every_s, theirs), daemon=True)
    process.start()
    try:
        assert ours.poll(120.0), "the learner did not start"
        assert ours.recv() == "ready"
        yield Saver(ours)
    finally:
        ours.send("end")
        process.join(30.0)
        if process.is_alive():
            process.kill()


def saving(
    asked: argparse.Namespace, settings: dict[str, Any], frames: Sequence[Frame], model: Model, console: Console
) -> dict[str, Any]:
    """The verdict path undisturbed, beside checkpoints, and beside checkpoints and loads, on the same arrivals."""
    sides = {UNDISTURBED: Seen(), CHECKPOINTS: Seen(), BOTH: Seen()}
    seconds: list[float] = []
    sizes: list[int] = []
    with EmbeddedRedis(appendfsync=asked.fsync) as server:
        site = Site(server.url, LINE, frames)
        site.publish([replace(model, info={"number": number}) for number in range(VERSIONS)])
        with (
            working({"redis_url": server.url, "line": LINE, "worker_name": "bench", **settings}),
            saver(server.url, asked.save_every) as learner,
        ):
            site.push(100)
            site.drained()
            site.push(400)
            full = 400 / site.drained()
            rate = asked.load * full
            for turn in range(asked.turns):
                for name in list(sides) if turn % 2 == 0 else list(sides)[::-1]:
                    if name != UNDISTURBED:
                        learner.work()
                    every = asked.every if name == BOTH else None
                    sides[name].add(site.load(rate, asked.seconds / asked.turns, SEED + turn, promote_every_s=every))
                    if name != UNDISTURBED:
                        took, size = learner.rest()
                        seconds, sizes = seconds + took, sizes + size
    found: dict[str, Any] = {name: seen.summary() for name, seen in sides.items()}
    still = found[UNDISTURBED]
    table = Table(title=f"{rate:.1f} frames/s, {asked.load:.0%} of {full:.1f}")
    for column in ("side", *found[BOTH]):
        table.add_column(column.replace("_", " "), justify="left" if column == "side" else "right")
    for name in sides:
        found[name]["p99_ratio"] = found[name]["p99_ms"] / still["p99_ms"]
        table.add_row(name, *(f"{found[name].get(column, 0.0):.1f}" for column in found[BOTH] if column != "p99_ratio"))
    console.print(table)
    found |= {"full_rate": full, "rate": rate, "saved": len(sizes)}
    found |= {"checkpoint_s": statistics.median(seconds), "checkpoint_mb": statistics.median(sizes) / 1e6}
    console.print(
        f"{len(sizes)} checkpoints of {found['checkpoint_mb']:.0f} MB, {found['checkpoint_s']:.2f} s each (medians); "
        f"p99 {found[CHECKPOINTS]['p99_ratio']:.2f} of the undisturbed one beside them, "
        f"{found[BOTH]['p99_ratio']:.2f} with a load every {asked.every:g} s as well",
        highlight=False,
    )
    return found
