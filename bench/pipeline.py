"""The pipeline beside its peers: `make bench`, or python -m bench.pipeline --help.

(a) the bare loop: the same decode, backbone and score in one process, in the same lanes, no Redis;
(b) this worker through Redis;
(c) the plain one-frame-at-a-time worker of plain_worker.py, in float32, contiguous, batch 1: what people write first;
(d) (c) in the numeric mode of (b), channels_last;
(e) this worker with a null backbone: the pipeline's own ceiling;
(f) producers of 50 kB frames;
(h) what tracing costs, off and on.

Every side runs several times, in turns; medians are shown, and ratios of medians. Where no mode is named it is bfloat16
on a CPU that multiplies it in hardware, else float32. The parts may be run one by one: each adds to the same file.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console

from bench.line import Usage, worker_main
from bench.loads import half_load, memory_over_time
from bench.producers import admission, send, send_many
from bench.record import Conditions, Record, bfloat16_in_hardware, machine
from bench.report import checks, show
from bench.sides import (
    SEED,
    WAIT_S,
    Setup,
    bare_loop,
    fit,
    full_batch_ms,
    make_judge,
    make_null,
    parts,
    run_plain,
    run_worker,
    traced,
    with_metrics,
    with_traces,
)
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.contract.frame import Frame
from gaussline.worker.engine.observer import Observer
from gaussline.worker.errors import GausslineError
from gaussline.worker.vision.backbones import load_backbone
from gaussline.worker.vision.runtime import RuntimeChoice, choose_runtime
from gaussline.worker.vision.weights import WeightsSource

PARTS = ("backbone", "half-load", "null", "producer", "trace", "memory")
Side = Callable[[], tuple[float, Usage, int]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code says whether the targets were reached."""
    parser = argparse.ArgumentParser(prog="python -m bench.pipeline", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--weights", help="state-dict file; none takes seeded random weights: as good for speed")
    parser.add_argument("--mode", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--frames", type=int, default=1600, help="frames of a run with a backbone")
    parser.add_argument("--null-frames", type=int, default=16_000, help="frames of a run without")
    parser.add_argument("--producer-frames", type=int, default=6_000)
    parser.add_argument("--memory-frames", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fsync", default="everysec", choices=["always", "everysec", "no"])
    parser.add_argument("--part", action="append", choices=PARTS, help="measure this part alone; may be repeated")
    parser.add_argument("--fresh", action="store_true", help="begin a new file; implied where no part is named")
    parser.add_argument("--output", type=Path, default=Path(".build/bench/pipeline.json"))
    options = parser.parse_args(arguments)
    mode = options.mode if options.mode != "auto" else "bfloat16" if bfloat16_in_hardware() else "float32"
    console = Console(width=120)
    with EmbeddedRedis() as server:
        version = server.client().info("server")["redis_version"]
    conditions = Conditions(machine(), version, options.fsync, options.backbone, mode, bfloat16_in_hardware())
    wanted = options.part or list(PARTS)
    record = Record.open(options.output, conditions, fresh=options.fresh or not options.part)
    console.print(f"{conditions.machine}; Redis {version}, appendfsync {options.fsync}; {options.backbone} in {mode}")

    def turns(sides: dict[str, Side]) -> None:
        for old in sides:
            record.runs.pop(old, None)
        for number in range(options.rounds):
            for name, side in sides.items():
                rate, usage, frames = side()
                record.add(name, rate, usage, frames)
                console.print(f"round {number + 1} of {options.rounds}: {name} {rate:.1f} frames/s")
        record.save(options.output, checks(record))

    if "backbone" in wanted or "half-load" in wanted:
        source = WeightsSource.parse(options.weights) if options.weights else WeightsSource(random_seed=SEED)
        if record.runtime and "backbone" not in wanted:
            known = {key: value for key, value in record.runtime.items() if key != "measured"}
            runtime = RuntimeChoice(**known)
        else:
            loaded = load_backbone(options.backbone, source, numeric_mode=mode)
            runtime = choose_runtime(loaded, device="cpu", lanes=None)
            record.runtime = runtime.to_dict()
        console.print(str(runtime))
        setup = Setup(options.backbone, options.weights, mode, runtime)
        frames = parts(options.frames)
        model = fit(setup, frames[:200])
        artefact = model.to_artefact().data
    if "backbone" in wanted:
        plain32 = Setup(options.backbone, options.weights, "float32", RuntimeChoice(memory_format="contiguous"))
        plain_same = Setup(options.backbone, options.weights, mode, RuntimeChoice(batch_size=1))
        model32 = fit(plain32, frames[:200])
        few = frames[: max(1, len(frames) // 3)]
        turns(
            {
                "bare": lambda: bare_loop(setup, model, frames),
                "worker": lambda: run_worker(options.fsync, partial(make_judge, setup), artefact, frames),
                "plain": lambda: run_plain(options.fsync, plain32, model32, few),
                "plain_same_mode": lambda: run_plain(options.fsync, plain_same, model, few),
            }
        )
    if "half-load" in wanted:
        batch_ms = full_batch_ms(setup, model)
        full = record.median("worker") or run_worker(options.fsync, partial(make_judge, setup), artefact, frames)[0]
        loads = []
        for number in range(options.rounds):
            loads.append(half_load(options.fsync, partial(make_judge, setup), artefact, frames, full / 2, number))
            console.print(f"round {number + 1} of {options.rounds}: half load p99 {loads[-1]['p99_ms']:.1f} ms")
        half = {name: statistics.median(load[name] for load in loads) for name in loads[0]}
        half |= {"full_batch_ms": batch_ms, "bound_ms": 1000 * WAIT_S + 2 * batch_ms + 10.0}
        record.extra["half_load"] = half
        record.save(options.output, checks(record))
    if "null" in wanted:
        grey = np.random.default_rng(SEED).integers(0, 256, (64, 224, 224), dtype=np.uint8)
        raw = [Frame(g.tobytes(), "raw", 1_700_000_000_000_000, shape=(224, 224), dtype="uint8") for g in grey]
        many = options.null_frames
        turns(
            {
                "null_1": lambda: run_worker(options.fsync, make_null, None, raw, total=many),
                "null_4": lambda: run_worker(options.fsync, make_null, None, raw, per_message=4, total=many),
            }
        )
    if "trace" in wanted:
        grey = np.random.default_rng(SEED).integers(0, 256, (64, 224, 224), dtype=np.uint8)
        plain = [Frame(g.tobytes(), "raw", 1_700_000_000_000_000, shape=(224, 224), dtype="uint8") for g in grey]

        def null(frames: Sequence[Frame], observe: Callable[[], Observer]) -> tuple[float, Usage, int]:
            main = partial(worker_main, observe=observe)
            return run_worker(options.fsync, make_null, None, frames, total=options.null_frames, main=main)

        turns(
            {
                "trace_off": lambda: null(plain, with_metrics),
                "trace_carried": lambda: null(traced(plain, 1.0), with_metrics),
                "trace_64th": lambda: null(traced(plain, 1 / 64), with_traces),
                "trace_all": lambda: null(traced(plain, 1.0), with_traces),
            }
        )
    if "producer" in wanted:
        count = options.producer_frames
        turns(
            {
                "producer_1": lambda: send(options.fsync, count),
                "producer_4": lambda: send_many(options.fsync, count, 4),
                "admission": lambda: admission(options.fsync, count),
            }
        )
    if "memory" in wanted:
        record.extra["memory"] = memory_over_time(options.fsync, options.memory_frames)
        record.save(options.output, checks(record))
    show(record, console)
    console.print(f"written to {options.output}")
    return 0 if all(each["reached"] for each in checks(record)) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except GausslineError as error:
        sys.exit(f"bench: {error}")
