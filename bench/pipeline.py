"""The pipeline beside its peers, in one run: `make bench`, or python -m bench.pipeline --help.

(a) the bare loop: the same decode, backbone and score in one process, no Redis;
(b) this worker through Redis;
(c) the plain one-frame-at-a-time worker of plain_worker.py, in float32, contiguous, batch 1: what people write first;
(d) (c) in the same numeric mode and memory format as (b);
(e) this worker with a null backbone: the pipeline's own ceiling; and the admission of 50 kB frames by one producer.

Every side runs several times, in turns; medians are shown, and ratios of medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from bench.line import Usage
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
    run_half_load,
    run_plain,
    run_worker,
)
from bench.sides import (
    admission as admission_rate,
)
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.contract.frame import Frame
from gaussline.worker.vision.backbones import load_backbone
from gaussline.worker.vision.runtime import RuntimeChoice, choose_runtime
from gaussline.worker.vision.weights import WeightsSource


def machine() -> str:
    """Processor, cores and software, for the record."""
    name = platform.processor() or "unknown"
    flags = ""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        text = info.read_text("utf-8")
        name = next(
            (line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")), name
        )
        flags = ", AVX512-BF16" if "avx512_bf16" in text else ""
    return f"{name}, {os.cpu_count()} cores{flags}; Python {platform.python_version()}, torch {torch.__version__}"


def main() -> int:
    """Run and print; the exit code says whether the targets were reached."""
    parser = argparse.ArgumentParser(prog="python -m bench.pipeline", description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--weights", help="state-dict file; none takes seeded random weights: as good for speed")
    parser.add_argument("--mode", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--null-frames", type=int, default=16_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fsync", default="everysec", choices=["always", "everysec", "no"])
    parser.add_argument("--output", type=Path, default=Path(".build/bench/pipeline.json"))
    options = parser.parse_args()
    console = Console(width=110)
    with EmbeddedRedis() as server:
        redis_version = server.client().info("server")["redis_version"]
    source = WeightsSource.parse(options.weights) if options.weights else WeightsSource(random_seed=SEED)
    runtime = choose_runtime(load_backbone(options.backbone, source, numeric_mode=options.mode), device="cpu")
    setup = Setup(options.backbone, options.weights, options.mode, runtime)
    naive = RuntimeChoice(memory_format="contiguous", batch_size=1)
    plain32 = Setup(options.backbone, options.weights, "float32", naive)
    plain_same = Setup(options.backbone, options.weights, options.mode, RuntimeChoice(batch_size=1))
    console.print(f"{machine()}; Redis {redis_version}, appendfsync {options.fsync}")
    console.print(f"{options.backbone}, {options.mode}: {runtime}")
    frames = parts(options.frames)
    model, model32 = fit(setup, frames[:200]), fit(plain32, frames[:200])
    artefact = model.to_artefact().data
    grey = np.random.default_rng(SEED).integers(0, 256, (64, 224, 224), dtype=np.uint8)
    raw = [Frame(g.tobytes(), "raw", 1_700_000_000_000_000, shape=(224, 224), dtype="uint8") for g in grey]
    sides: dict[str, Callable[[], tuple[float, Usage]]] = {
        "bare": lambda: bare_loop(setup, model, frames),
        "worker": lambda: run_worker(options.fsync, partial(make_judge, setup), artefact, frames),
        "plain": lambda: run_plain(options.fsync, plain32, model32, frames[: len(frames) // 3]),
        "plain_same_mode": lambda: run_plain(options.fsync, plain_same, model, frames[: len(frames) // 2]),
        "null_1": lambda: run_worker(options.fsync, make_null, None, raw, total=options.null_frames),
        "null_4": lambda: run_worker(options.fsync, make_null, None, raw, per_message=4, total=options.null_frames),
    }
    measured: dict[str, list[tuple[float, Usage]]] = {name: [] for name in sides}
    admitted = []
    for number in range(options.rounds):
        for name, side in sides.items():
            measured[name].append(side())
            console.print(f"round {number + 1} of {options.rounds}: {name} {measured[name][-1][0]:.1f} frames/s")
        admitted.append(admission_rate(options.fsync))
    rates = {name: statistics.median(rate for rate, _ in runs) for name, runs in measured.items()}
    batch_ms = full_batch_ms(setup, model)
    half = run_half_load(options.fsync, setup, artefact, frames, rates["worker"] / 2)
    bound_ms = 1000 * WAIT_S + 2 * batch_ms + 10.0
    bf16 = options.mode == "bfloat16" and "BF16" in machine()
    admission = statistics.median(admitted)
    checks = [
        ("worker / bare loop", rates["worker"] / rates["bare"], 0.90),
        ("worker / plain worker", rates["worker"] / rates["plain"], 3.0 if bf16 else 1.8),
        ("null backbone, 1 frame a message, frames/s", rates["null_1"], 4000.0),
        ("null backbone, 4 frames a message, frames/s", rates["null_4"], 4000.0),
        ("producer alone, 50 kB frames/s", admission, 3000.0),
        (f"p99 at half load: bound {bound_ms:.1f} ms over it", bound_ms / half["p99_ms"], 1.0),
    ]
    usage = {name: _usage(runs, options, name) for name, runs in measured.items()}
    console.print(_sides_table(rates, usage, setup, options.fsync))
    console.print(_checks_table(checks))
    console.print(f"worker / plain worker in the same mode: {rates['worker'] / rates['plain_same_mode']:.2f}")
    console.print(
        f"half load ({half['rate']:.0f}/s): p50 {half['p50_ms']:.1f} ms, p99 {half['p99_ms']:.1f} ms; "
        f"full batch {batch_ms:.1f} ms"
    )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(
        json.dumps(
            {
                "machine": machine(),
                "redis": redis_version,
                "appendfsync": options.fsync,
                "mode": options.mode,
                "runtime": runtime.to_dict(),
                "frames_per_second": rates,
                "usage": usage,
                "half_load": half,
                "full_batch_ms": batch_ms,
                "producer_frames_per_second": admission,
                "checks": [{"what": what, "value": value, "target": target} for what, value, target in checks],
            },
            indent=2,
        )
        + "\n",
        "utf-8",
    )
    console.print(f"written to {options.output}")
    return 0 if all(value >= target for _, value, target in checks) else 1


def _usage(runs: list[tuple[float, Usage]], options: Any, name: str) -> dict[str, float]:
    counts = {"plain": options.frames // 3, "plain_same_mode": options.frames // 2}
    count = options.null_frames if name.startswith("null") else counts.get(name, options.frames)
    return {
        "cpu_ms_per_frame": 1000 * statistics.median(usage.cpu_s for _, usage in runs) / count,
        "peak_mb": statistics.median(usage.peak_bytes for _, usage in runs) / 1e6,
    }


def _sides_table(rates: dict[str, float], usage: dict[str, dict[str, float]], setup: Setup, fsync: str) -> Table:
    names = {
        "bare": f"(a) bare loop, {setup.mode}, batch {setup.runtime.batch_size}",
        "worker": f"(b) this worker, {setup.mode}, batch {setup.runtime.batch_size}",
        "plain": "(c) plain worker, float32, contiguous, batch 1",
        "plain_same_mode": f"(d) plain worker, {setup.mode}, channels_last, batch 1",
        "null_1": "(e) this worker, null backbone, raw 224 x 224, 1 frame a message",
        "null_4": "(e) the same, 4 frames a message",
    }
    table = Table(title=f"medians; Redis with appendfsync {fsync}")
    for column in ("side", "frames/s", "CPU ms a frame", "peak MB"):
        table.add_column(column, justify="left" if column == "side" else "right")
    for name, text in names.items():
        table.add_row(
            text, f"{rates[name]:.1f}", f"{usage[name]['cpu_ms_per_frame']:.3f}", f"{usage[name]['peak_mb']:.0f}"
        )
    return table


def _checks_table(checks: Sequence[tuple[str, float, float]]) -> Table:
    table = Table(title="targets")
    for column in ("what", "measured", "target", ""):
        table.add_column(column, justify="left" if column in ("what", "") else "right")
    for what, value, target in checks:
        table.add_row(what, f"{value:.2f}", f"{target:g}", "reached" if value >= target else "MISSED")
    return table


if __name__ == "__main__":
    sys.exit(main())
