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
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from prometheus_client import CollectorRegistry

from bench.line import LINE, Usage, drained, last_verdict_s, push, serving, usage_of_worker, worker_main
from bench.null_judge import NullJudge
from bench.plain_worker import GROUP, STREAM, plain_main
from gaussline.producer.sources.synthetic import SyntheticParts
from gaussline.worker.broker.client import Redis, time_us
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.broker.registry import Registry
from gaussline.worker.contract.frame import Frame, encode_batch
from gaussline.worker.contract.limits import ImageLimits
from gaussline.worker.contract.model import Model
from gaussline.worker.engine.book import ModelBook
from gaussline.worker.engine.judge import BackboneJudge
from gaussline.worker.engine.observer import Observer, Observers
from gaussline.worker.learning.fit import FitOptions, fit_model
from gaussline.worker.telemetry.metrics import Metrics
from gaussline.worker.vision.backbones import load_backbone
from gaussline.worker.vision.decode import decode
from gaussline.worker.vision.features import FeatureExtractor
from gaussline.worker.vision.preprocess import preprocess_one, stack
from gaussline.worker.vision.runtime import RuntimeChoice, use_threads
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


def with_metrics() -> Observer:
    """What every worker has: its metrics."""
    return Metrics(CollectorRegistry(), LINE, "bench-1")


def with_traces() -> Observer:
    """The same and spans, which go through the library's queue and encoding to nobody."""
    from bench.discard import Discard
    from gaussline.worker.telemetry.traces import TraceObserver
    from gaussline.worker.tracing.spans import Spans

    return Observers(with_metrics(), TraceObserver(Spans(Discard(), "bench", LINE, "bench-1")))


def traced(frames: Sequence[Frame], share: float) -> list[Frame]:
    """The frames, a share of them with a trace, evenly."""
    chosen = {int(place / share) for place in range(int(len(frames) * share))} if share else set()
    context = "00-{:032x}-{:016x}-01"
    return [
        replace(frame, trace=context.format(place + 1, place + 1)) if place in chosen else frame
        for place, frame in enumerate(frames)
    ]


def bare_loop(setup: Setup, model: Model, frames: Sequence[Frame]) -> tuple[float, Usage, int]:
    """Decode, backbone and score in one process, batch after batch: (frames/s, usage, frames).

    In as many lanes as the worker has, each of which decodes its own batches; a single lane has the next batch decoded
    beside it.
    """
    extractor = setup.extractor()
    scorer = Scorer(extractor.spec)
    prepared = scorer.prepare(model)
    limits, size = ImageLimits(), extractor.spec.input_size
    runtime = setup.runtime

    def image(frame: Frame) -> torch.Tensor:
        return preprocess_one(decode(frame.data, frame.encoding, limits), size)

    def judge(images: Sequence[torch.Tensor]) -> None:
        distances = scorer.distances(extractor.extract_tensors(stack(images)), prepared)
        model.working_point.fails(model.combination.combine(distances))

    def lane(own: Sequence[Sequence[Frame]]) -> None:
        use_threads(runtime.threads)
        for chunk in own:
            judge([image(frame) for frame in chunk])

    chunks = [frames[start : start + runtime.batch_size] for start in range(0, len(frames), runtime.batch_size)]
    with ThreadPoolExecutor(max(2, runtime.lanes)) as pool:
        list(pool.map(lane, [chunks[:1]] * runtime.lanes))
        before = Usage.now()
        begin = time.perf_counter()
        if runtime.lanes > 1:
            list(pool.map(lane, [chunks[number :: runtime.lanes] for number in range(runtime.lanes)]))
        else:
            ahead = [pool.submit(image, frame) for frame in chunks[0]]
            for index in range(len(chunks)):
                images = [future.result() for future in ahead]
                if index + 1 < len(chunks):
                    ahead = [pool.submit(image, frame) for frame in chunks[index + 1]]
                judge(images)
        seconds = time.perf_counter() - begin
        after = Usage.now()
    return len(frames) / seconds, Usage(after.cpu_s - before.cpu_s, after.peak_bytes), len(frames)


def run_worker(
    fsync: Fsync,
    make: Callable[[Redis], tuple[Any, int, int]],
    artefact: bytes | None,
    frames: Sequence[Frame],
    *,
    per_message: int = 1,
    total: int | None = None,
    main: Callable[..., None] = worker_main,
) -> tuple[float, Usage, int]:
    """This worker on a backlog of `total` frames of four cameras: (frames/s, its usage, frames).

    The worker is up and warm before; it is stopped (SIGSTOP) while the backlog is pushed, so that the pushing costs it
    nothing and all of the measured time is its own.
    """
    count = total or len(frames)
    with EmbeddedRedis(appendfsync=fsync) as server:
        client = server.client(timeout_s=60.0)
        publish(client, artefact)
        cameras = [f"cam{number}" for number in range(4)]
        context = multiprocessing.get_context("spawn")
        ready, told = context.Event(), context.Event()
        with serving(main, server.url, make, "bench-1", ready, told, WAIT_S) as process:
            push(server.url, "warm", frames, total=min(count, 64))
            drained(client, ["warm"])
            assert process.pid is not None
            os.kill(process.pid, signal.SIGSTOP)
            for camera in cameras:
                push(server.url, camera, frames, per_message=per_message, total=count // len(cameras))
            begin_us = time_us(client)
            os.kill(process.pid, signal.SIGCONT)
            drained(client, cameras, every_s=0.2)
            seconds = last_verdict_s(client) - begin_us / 1e6
        done = count // len(cameras) * len(cameras)
        return done / seconds, usage_of_worker(client), done


def run_plain(fsync: Fsync, setup: Setup, model: Model, frames: Sequence[Frame]) -> tuple[float, Usage, int]:
    """The plain worker on a backlog: (frames/s, its usage, frames)."""
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
        return len(frames) / seconds, usage_of_worker(client), len(frames)


def full_batch_ms(setup: Setup, model: Model) -> float:
    """Median compute time of a full batch, backbone and score, with every lane at work, in milliseconds."""
    extractor = setup.extractor()
    scorer = Scorer(extractor.spec)
    prepared = scorer.prepare(model)
    size = (setup.runtime.batch_size, 3, *extractor.spec.input_size)
    batch = torch.from_numpy(np.random.default_rng(SEED).integers(0, 256, size, dtype=np.uint8))

    def lane(_: int) -> list[float]:
        use_threads(setup.runtime.threads)
        seconds = []
        for _ in range(30):
            begin = time.perf_counter()
            scorer.distances(extractor.extract_tensors(batch), prepared)
            seconds.append(time.perf_counter() - begin)
        return seconds[5:]

    with ThreadPoolExecutor(setup.runtime.lanes) as pool:
        return 1000.0 * statistics.median(each for own in pool.map(lane, range(setup.runtime.lanes)) for each in own)


def publish(client: Redis, artefact: bytes | None) -> None:
    """Promote the model, where there is one."""
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


def fit(setup: Setup, frames: Sequence[Frame]) -> Model:
    """A model of these frames."""
    extractor = setup.extractor()
    limits, size = ImageLimits(), extractor.spec.input_size
    images = [preprocess_one(decode(frame.data, frame.encoding, limits), size) for frame in frames]
    parts_of = [extractor.extract(stack(images[start : start + 16])) for start in range(0, len(images), 16)]
    features = [np.concatenate([part[level] for part in parts_of]) for level in range(len(extractor.spec.levels))]
    return fit_model(features, extractor.spec, FitOptions(rate=0.05))
