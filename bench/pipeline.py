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
import multiprocessing
import os
import platform
import signal
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from bench.line import LINE, Usage, drained, push, serving, usage_of_worker, worker_main
from bench.null_judge import NullJudge
from bench.plain_worker import GROUP, STREAM, plain_main
from gaussline.producer.sources.synthetic import SyntheticParts
from gaussline.worker.broker.admission import Admission, Request
from gaussline.worker.broker.client import Redis
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.broker.registry import Registry
from gaussline.worker.broker.verdicts import Verdicts
from gaussline.worker.contract.clock import from_text
from gaussline.worker.contract.frame import Frame, encode_batch
from gaussline.worker.contract.limits import ImageLimits
from gaussline.worker.contract.model import Model
from gaussline.worker.engine.book import ModelBook
from gaussline.worker.engine.judge import BackboneJudge
from gaussline.worker.learning.fit import FitOptions, fit_model
from gaussline.worker.vision.backbones import load_backbone
from gaussline.worker.vision.decode import decode
from gaussline.worker.vision.features import FeatureExtractor
from gaussline.worker.vision.preprocess import preprocess_one, stack
from gaussline.worker.vision.runtime import RuntimeChoice, choose_runtime
from gaussline.worker.vision.scorer import PreparedModel, Scorer
from gaussline.worker.vision.weights import WeightsSource

Fsync = Literal["always", "everysec", "no"]
SEED = 3
WAIT_S = 0.01


@dataclass(frozen=True, slots=True)
class Setup:
    """What both sides of a run share; it travels to the worker processes."""

    backbone: str
    weights: str | None
    mode: str
    runtime: RuntimeChoice

    def source(self) -> WeightsSource:
        """Weights from the file, else seeded random ones: for speed they are as good."""
        return WeightsSource.parse(self.weights) if self.weights else WeightsSource(random_seed=SEED)

    def extractor(self) -> FeatureExtractor:
        """The backbone, ready to run."""
        return FeatureExtractor(load_backbone(self.backbone, self.source(), numeric_mode=self.mode), self.runtime)


def make_judge(setup: Setup, client: Redis) -> tuple[Any, int]:
    """The judge of a worker process, and its batch size."""
    extractor = setup.extractor()
    judge = BackboneJudge(
        extractor, Scorer(extractor.spec), ImageLimits(), lambda: book.page, allow_random=setup.weights is None
    )
    book: ModelBook[PreparedModel] = ModelBook(client, LINE, judge.prepare)
    book.refresh()
    return judge, setup.runtime.batch_size


def make_null(client: Redis) -> tuple[Any, int]:
    """The judge of the pipeline's own ceiling."""
    return NullJudge(), 64


def bare_loop(setup: Setup, model: Model, frames: Sequence[Frame]) -> tuple[float, Usage]:
    """Decode, backbone and score in one process, batch after batch, the next one decoded beside; (frames/s, usage)."""
    extractor = setup.extractor()
    scorer = Scorer(extractor.spec)
    prepared = scorer.prepare(model)
    limits, size = ImageLimits(), extractor.spec.input_size

    def image(frame: Frame) -> torch.Tensor:
        return preprocess_one(decode(frame.data, frame.encoding, limits), size)

    batch = setup.runtime.batch_size
    chunks = [frames[start : start + batch] for start in range(0, len(frames), batch)]
    extractor.extract_tensors(stack([image(frame) for frame in chunks[0]]))
    before = Usage.now()
    begin = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        ahead = [pool.submit(image, frame) for frame in chunks[0]]
        for index in range(len(chunks)):
            images = [future.result() for future in ahead]
            if index + 1 < len(chunks):
                ahead = [pool.submit(image, frame) for frame in chunks[index + 1]]
            distances = scorer.distances(extractor.extract_tensors(stack(images)), prepared)
            model.working_point.fails(model.combination.combine(distances))
    seconds = time.perf_counter() - begin
    after = Usage.now()
    return len(frames) / seconds, Usage(after.cpu_s - before.cpu_s, after.peak_bytes)


def run_worker(
    fsync: Fsync,
    make: Callable[[Redis], tuple[Any, int]],
    artefact: bytes | None,
    frames: Sequence[Frame],
    *,
    per_message: int = 1,
    total: int | None = None,
) -> tuple[float, Usage]:
    """This worker on a backlog of `total` frames of four cameras: (frames/s, its usage).

    The worker is up and warm before; it is stopped (SIGSTOP) while the backlog is pushed, so that the pushing costs it
    nothing and all of the measured time is its own.
    """
    count = total or len(frames)
    with EmbeddedRedis(appendfsync=fsync) as server:
        client = server.client(timeout_s=60.0)
        _publish(client, artefact)
        cameras = [f"cam{number}" for number in range(4)]
        context = multiprocessing.get_context("spawn")
        ready, told = context.Event(), context.Event()
        with serving(worker_main, server.url, make, "bench-1", ready, told, WAIT_S) as process:
            push(server.url, "warm", frames, total=min(count, 64))
            drained(client, ["warm"])
            assert process.pid is not None
            os.kill(process.pid, signal.SIGSTOP)
            for camera in cameras:
                push(server.url, camera, frames, per_message=per_message, total=count // len(cameras))
            begin = time.perf_counter()
            os.kill(process.pid, signal.SIGCONT)
            drained(client, cameras)
            seconds = time.perf_counter() - begin
        return count // len(cameras) * len(cameras) / seconds, usage_of_worker(client)


def run_plain(fsync: Fsync, setup: Setup, model: Model, frames: Sequence[Frame]) -> tuple[float, Usage]:
    """The plain worker on a backlog: (frames/s, its usage)."""
    with EmbeddedRedis(appendfsync=fsync) as server:
        client = server.client(timeout_s=60.0)
        client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
        for sequence, frame in enumerate(frames):
            client.xadd(STREAM, {"d": encode_batch("cam1", 1, sequence, [frame])})
        context = multiprocessing.get_context("spawn")
        ready, told = context.Event(), context.Event()
        with serving(plain_main, server.url, setup, model, len(frames), ready, told):
            begin = time.perf_counter()
            while not client.exists("bench:done"):
                time.sleep(0.02)
            seconds = time.perf_counter() - begin
        return len(frames) / seconds, usage_of_worker(client)


def run_half_load(
    fsync: Fsync, setup: Setup, artefact: bytes, frames: Sequence[Frame], rate: float
) -> dict[str, float]:
    """Open-loop arrivals at `rate`: latency from admission to verdict, both by Redis's clock, in milliseconds."""
    with EmbeddedRedis(appendfsync=fsync) as server:
        client = server.client(timeout_s=60.0)
        _publish(client, artefact)
        door = Admission(client, LINE, "cam1", camera_budget_bytes=2**33, line_budget_bytes=2**33)
        context = multiprocessing.get_context("spawn")
        ready, told = context.Event(), context.Event()
        with serving(worker_main, server.url, partial(make_judge, setup), "bench-1", ready, told, WAIT_S):
            push(server.url, "warm", frames[:64])
            drained(client, ["warm"])
            last = Verdicts(client, LINE).last_id()
            epoch = door.open()
            gaps = np.random.default_rng(SEED).exponential(1.0 / rate, len(frames))
            due = time.perf_counter()
            for sequence, (frame, gap) in enumerate(zip(frames, gaps, strict=True)):
                due += gap
                time.sleep(max(0.0, due - time.perf_counter()))
                door.admit(Request(epoch, sequence, 1, encode_batch("cam1", epoch, sequence, [frame])))
            drained(client, ["cam1"])
        verdicts = [verdict for _, verdict in Verdicts(client, LINE).read(last, count=10**6)]
    latency = [(from_text(verdict["judged_at"]) - from_text(verdict["admitted_at"])) / 1000.0 for verdict in verdicts]
    p50, p99 = np.quantile(latency, [0.5, 0.99])
    return {"rate": rate, "frames": len(latency), "p50_ms": float(p50), "p99_ms": float(p99), "max_ms": max(latency)}


def full_batch_ms(setup: Setup, model: Model) -> float:
    """Median compute time of a full batch, backbone and score, in milliseconds."""
    extractor = setup.extractor()
    scorer = Scorer(extractor.spec)
    prepared = scorer.prepare(model)
    size = (setup.runtime.batch_size, 3, *extractor.spec.input_size)
    batch = torch.from_numpy(np.random.default_rng(SEED).integers(0, 256, size, dtype=np.uint8))
    seconds = []
    for _ in range(20):
        begin = time.perf_counter()
        scorer.distances(extractor.extract_tensors(batch), prepared)
        seconds.append(time.perf_counter() - begin)
    return 1000.0 * statistics.median(seconds)


def _publish(client: Redis, artefact: bytes | None) -> None:
    if artefact is not None:
        registry = Registry(client, LINE)
        registry.publish("default", artefact, by="bench")
        registry.promote("default", 1, by="bench")


def parts(count: int) -> list[Frame]:
    """Rendered parts as PNG frames of 300 x 300 pixels; every other one is another part."""
    import io

    from PIL import Image

    line = SyntheticParts(SEED, size=300, defect_share=0.05)
    frames = []
    for index in range(min(count, 200)):
        buffer = io.BytesIO()
        Image.fromarray(line.render(index).image).convert("L").save(buffer, "PNG")
        frames.append(Frame(buffer.getvalue(), "png", 1_700_000_000_000_000))
    return [frames[index % len(frames)] for index in range(count)]


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
    model, model32 = _fit(setup, frames[:200]), _fit(plain32, frames[:200])
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
        admitted.append(_admission(options.fsync))
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


def _admission(fsync: Fsync) -> float:
    """Frames of 50 kB that one producer has admitted a second, one frame a message."""
    frame = Frame(np.random.default_rng(SEED).bytes(50_000), "jpeg", 1_700_000_000_000_000)
    with EmbeddedRedis(appendfsync=fsync) as server:
        return 6000 / push(server.url, "cam1", [frame], total=6000)


def _fit(setup: Setup, frames: Sequence[Frame]) -> Model:
    extractor = setup.extractor()
    limits, size = ImageLimits(), extractor.spec.input_size
    images = [preprocess_one(decode(frame.data, frame.encoding, limits), size) for frame in frames]
    parts_of = [extractor.extract(stack(images[start : start + 16])) for start in range(0, len(images), 16)]
    features = [np.concatenate([part[level] for part in parts_of]) for level in range(len(extractor.spec.levels))]
    return fit_model(features, extractor.spec, FitOptions(rate=0.05))


def _usage(runs: list[tuple[float, Usage]], options: Any, name: str) -> dict[str, float]:
    counts = {"plain": options.frames // 3, "plain_same_mode": options.frames // 2}
    count = options.null_frames if name.startswith("null") else counts.get(name, options.frames)
    return {
        "cpu_ms_per_frame": 1000 * statistics.median(usage.cpu_s for _, usage in runs) / count,
        "peak_mb": statistics.median(usage.peak_bytes for _, usage in runs) / 1e6,
    }


def _sides_table(rates: dict[str, float], usage: dict[str, dict[str, float]], setup: Setup, fsync: Fsync) -> Table:
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
