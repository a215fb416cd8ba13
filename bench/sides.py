"""The sides that are measured: each a function that answers frames a second and what its process used."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

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
from gaussline.worker.vision.runtime import RuntimeChoice
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


def make_judge(setup: Setup, client: Redis) -> tuple[Any, int, int]:
    """The judge of a worker process, its batch size and its lanes."""
    extractor = setup.extractor()
    judge = BackboneJudge(
        extractor, Scorer(extractor.spec), ImageLimits(), lambda: book.page, allow_random=setup.weights is None
    )
    book: ModelBook[PreparedModel] = ModelBook(client, LINE, judge.prepare)
    book.refresh()
    return judge, setup.runtime.batch_size, setup.runtime.lanes


def make_null(client: Redis) -> tuple[Any, int, int]:
    """The judge of the pipeline's own ceiling."""
    return NullJudge(), 64, 1


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
    make: Callable[[Redis], tuple[Any, int, int]],
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
    line = SyntheticParts(SEED, size=300, defect_share=0.05)
    frames = []
    for index in range(min(count, 200)):
        buffer = io.BytesIO()
        Image.fromarray(line.render(index).image).convert("L").save(buffer, "PNG")
        frames.append(Frame(buffer.getvalue(), "png", 1_700_000_000_000_000))
    return [frames[index % len(frames)] for index in range(count)]


def admission(fsync: Fsync) -> float:
    """Frames of 50 kB that one producer has admitted a second, one frame a message."""
    frame = Frame(np.random.default_rng(SEED).bytes(50_000), "jpeg", 1_700_000_000_000_000)
    with EmbeddedRedis(appendfsync=fsync) as server:
        return 6000 / push(server.url, "cam1", [frame], total=6000)


def fit(setup: Setup, frames: Sequence[Frame]) -> Model:
    extractor = setup.extractor()
    limits, size = ImageLimits(), extractor.spec.input_size
    images = [preprocess_one(decode(frame.data, frame.encoding, limits), size) for frame in frames]
    parts_of = [extractor.extract(stack(images[start : start + 16])) for start in range(0, len(images), 16)]
    features = [np.concatenate([part[level] for part in parts_of]) for level in range(len(extractor.spec.levels))]
    return fit_model(features, extractor.spec, FitOptions(rate=0.05))
