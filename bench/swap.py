"""Roll-outs under load: `make bench-swap`, or python -m bench.swap --help.

swap:       a worker at 70 % of its own full rate, with a promotion a second and without by turns, on the same arrivals.
            Latency is from admission to verdict, both by Redis's clock. Every promotion is of another version than the
            worker holds, so each one is fetched, checked and prepared.
throughput: three workers of the same model drain the same backlog by turns: one with feature events, a shadow and a
            learner beside it on the same cores, one without the learner, as where that has a machine of its own, and
            one with all of that off. Those whose turn it is not are stopped (SIGSTOP).
saving:     as swap, with checkpoints of a learner at EfficientNet-B4 sizes beside the worker: see bench.saving.

The worker is the product's own, in a process of its own, with its watch, its heartbeat and its heat maps.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.record import bfloat16_in_hardware, machine
from bench.saving import saving
from bench.sides import SEED, Setup, fit, parts
from bench.site import VERSIONS, Seen, Site, working
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.commands.child import Child
from gaussline.worker.contract.frame import Frame
from gaussline.worker.contract.model import Model
from gaussline.worker.contract.trial import SHADOW, Trial
from gaussline.worker.errors import GausslineError
from gaussline.worker.vision.backbones import load_backbone
from gaussline.worker.vision.runtime import RuntimeChoice, choose_runtime

P99, MAXIMUM, SHARE = 1.2, 2.0, 0.95
"""Targets: of the latency under promotions beside the undisturbed one, and of the throughput with all that is on."""
PARTS = ("swap", "throughput", "saving")
ALL_OFF, EVENTS, ALL_ON = "off", "events", "on"
"""Sides of the throughput part: nothing; feature events and a shadow; and a learner beside."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code says whether the targets were reached."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.swap", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--part", action="append", choices=["swap", "throughput", "saving"], help="measure this part alone"
    )
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--weights", help="state-dict file; none takes seeded random weights: as good for speed")
    parser.add_argument("--mode", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--seconds", type=float, default=120.0, help="length of either side of the swap part")
    parser.add_argument("--turns", type=int, default=2, help="stretches that each side is cut into")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two promotions")
    parser.add_argument("--save-every", type=float, default=2.0, help="seconds between two checkpoints, saving part")
    parser.add_argument("--load", type=float, default=0.7, help="of the worker's full rate")
    parser.add_argument(
        "--frames",
        type=int,
        default=4_000,
        help="backlog of one round of the throughput part: as long as it takes for a checkpoint to fall into each",
    )
    parser.add_argument("--rounds", type=int, default=5, help="of the throughput part")
    parser.add_argument("--fsync", default="everysec", choices=["always", "everysec", "no"])
    parser.add_argument("--output", type=Path, default=Path(".build/bench/swap.json"))
    asked = parser.parse_args(arguments)
    mode = asked.mode if asked.mode != "auto" else "bfloat16" if bfloat16_in_hardware() else "float32"
    setup = Setup(asked.backbone, asked.weights, mode, RuntimeChoice())
    runtime = choose_runtime(load_backbone(asked.backbone, setup.source(), numeric_mode=mode), lanes=None)
    console = Console(width=120)
    console.print(f"{machine()}; appendfsync {asked.fsync}; {asked.backbone} in {mode}; {runtime}", highlight=False)
    frames = parts(200)
    model = fit(replace(setup, runtime=runtime), frames)
    settings = {
        "batch_max_frames": runtime.batch_size,
        "memory_format": runtime.memory_format,
        "torch_threads": runtime.threads * runtime.lanes,
        "compute_lanes": runtime.lanes,
        "weights": asked.weights,
        "allow_random_weights": asked.weights is None,
    }
    record: dict[str, Any] = {"machine": machine(), "runtime": str(runtime), "appendfsync": asked.fsync}
    reached = True
    if "swap" in (asked.part or ["swap"]):
        record["swap"] = swap(asked, settings, frames, model, console)
        reached &= record["swap"]["reached"]
    if "throughput" in (asked.part or ["throughput"]):
        record["throughput"] = throughput(asked, settings, frames, model, console)
        reached &= record["throughput"]["reached"]
    if "saving" in (asked.part or ["saving"]):
        record["saving"] = saving(asked, settings, frames, model, console)
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    console.print(f"written to {asked.output}", highlight=False)
    return 0 if reached else 1


def swap(
    asked: argparse.Namespace, settings: dict[str, Any], frames: Sequence[Frame], model: Model, console: Console
) -> dict[str, Any]:
    """The undisturbed side and the one with promotions, by turns."""
    with EmbeddedRedis(appendfsync=asked.fsync) as server:
        site = Site(server.url, "swap", frames)
        site.publish([replace(model, info={"number": number}) for number in range(VERSIONS)])
        with working({"redis_url": server.url, "line": "swap", "worker_name": "bench", **settings}):
            site.push(100)
            site.drained()
            site.push(400)
            full = 400 / site.drained()
            rate = asked.load * full
            sides = {"undisturbed": Seen(), "promotions": Seen()}
            for turn in range(asked.turns):
                for name in list(sides) if turn % 2 == 0 else list(sides)[::-1]:
                    every = asked.every if name == "promotions" else None
                    sides[name].add(site.load(rate, asked.seconds / asked.turns, SEED + turn, promote_every_s=every))
    found: dict[str, Any] = {name: seen.summary() for name, seen in sides.items()}
    still, moving = found["undisturbed"], found["promotions"]
    found |= {
        "full_rate": full,
        "rate": rate,
        "p99_ratio": moving["p99_ms"] / still["p99_ms"],
        "max_ratio": moving["max_ms"] / still["max_ms"],
    }
    lost = still["missing"] + moving["missing"]
    found["reached"] = bool(found["p99_ratio"] <= P99 and found["max_ratio"] <= MAXIMUM and lost == 0)
    table = Table(title=f"{rate:.1f} frames/s, {asked.load:.0%} of {full:.1f}; a promotion every {asked.every:g} s")
    for column in ("side", *moving):
        table.add_column(column.replace("_", " "), justify="left" if column == "side" else "right")
    for name in sides:
        table.add_row(name, *(f"{found[name].get(column, 0.0):.1f}" for column in moving))
    console.print(table)
    console.print(
        f"p99 {found['p99_ratio']:.2f} of the undisturbed one (target {P99:g}), maximum {found['max_ratio']:.2f} "
        f"(target {MAXIMUM:g}), {lost:.0f} frames lost: {'reached' if found['reached'] else 'missed'}",
        highlight=False,
    )
    return found


def throughput(
    asked: argparse.Namespace, settings: dict[str, Any], frames: Sequence[Frame], model: Model, console: Console
) -> dict[str, Any]:
    """Frames a second of a worker with online mode and a shadow on, beside one with both off."""
    rates: dict[str, list[float]] = {ALL_OFF: [], EVENTS: [], ALL_ON: []}
    learning: list[tuple[float, float]] = []
    with EmbeddedRedis(appendfsync=asked.fsync) as server:
        sites = {name: Site(server.url, name, frames) for name in rates}
        for name, site in sites.items():
            site.publish([replace(model, info={"number": number}) for number in range(2)])
            if name != ALL_OFF:
                site.registry.promote("default", 2, by="bench", channel=SHADOW, trial=Trial(86_400.0))
        environment = {
            **os.environ,
            "GAUSSLINE_REDIS_URL": server.url,
            "GAUSSLINE_LEARN_QUARANTINE_S": "0",
            "GAUSSLINE_LOG_LEVEL": "error",
            "OMP_NUM_THREADS": "1",
        }
        common = {"redis_url": server.url, "worker_name": "bench", **settings}
        with (
            working({**common, "line": ALL_OFF}) as off,
            working({**common, "line": EVENTS, "features": "all"}) as events,
            working({**common, "line": ALL_ON, "features": "all"}) as on,
            Child("learner", ["learn", "default", "--line", ALL_ON], environment) as learner,
        ):
            processes = {ALL_OFF: off, EVENTS: events, ALL_ON: on}
            for process in processes.values():
                os.kill(process, signal.SIGSTOP)
            until_idle(learner.pid)
            for turn in range(asked.rounds + 1):  # the first round warms up
                for name in list(rates) if turn % 2 == 0 else list(rates)[::-1]:
                    sites[name].push(asked.frames)
                    used_s = cpu_s(learner.pid)
                    os.kill(processes[name], signal.SIGCONT)
                    seconds = sites[name].drained()
                    os.kill(processes[name], signal.SIGSTOP)
                    if turn:
                        rates[name].append(asked.frames / seconds)
                    if name == ALL_ON:  # it works beside the worker that it learns from, and beside no other
                        during_s = cpu_s(learner.pid) - used_s
                        until_idle(learner.pid)
                        learning.append((during_s, cpu_s(learner.pid) - used_s))
            for process in processes.values():
                os.kill(process, signal.SIGCONT)
    off_rate, events_rate, on_rate = (statistics.median(rates[name]) for name in rates)
    shares = {name: statistics.median(np.divide(rates[name], rates[ALL_OFF])) for name in (EVENTS, ALL_ON)}
    during_s, whole_s = (statistics.median(each) for each in zip(*learning[1:], strict=True))
    found = {
        "rates": rates,
        **{name: statistics.median(rates[name]) for name in rates},
        "shares": shares,
        "learner_cpu_s": whole_s,
        "learner_cpu_s_during": during_s,
        "reached": bool(shares[ALL_ON] >= SHARE),
    }
    console.print(
        f"throughput: {on_rate:.1f} frames/s with events, a shadow and a learner on the same cores, {events_rate:.1f} "
        f"without the learner, {off_rate:.1f} with all off; medians of {asked.rounds} pairs {shares[ALL_ON]:.3f} "
        f"(target {SHARE:g}: {'reached' if found['reached'] else 'missed'}) and {shares[EVENTS]:.3f}; the learner used "
        f"{whole_s:.2f} s of CPU for {asked.frames} frames, {during_s:.2f} s of it while the worker worked",
        highlight=False,
    )
    return found


def cpu_s(pid: int) -> float:
    """What a process has used so far, its threads among it."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def until_idle(pid: int, quiet_s: float = 1.0, within_s: float = 60.0) -> None:
    """Wait until a process has used next to no CPU for a while."""
    end = time.monotonic() + within_s
    before = cpu_s(pid)
    while time.monotonic() < end:
        time.sleep(quiet_s)
        now = cpu_s(pid)
        if now - before <= 0.03:
            return
        before = now


if __name__ == "__main__":
    try:
        sys.exit(main())
    except GausslineError as error:
        sys.exit(f"bench: {error}")
