"""Producers of 50 kB frames, alone with their Redis: frames that are admitted a second."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from bench.line import BUDGET, LINE, Usage, push
from bench.sides import SEED, Fsync
from gaussline.producer.producer import Producer
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.contract.frame import Frame
from gaussline.worker.settings import Settings

SIZE_BYTES = 50_000


def send(fsync: Fsync, count: int) -> tuple[float, Usage, int]:
    """`Producer.send`, one frame a message and one answer a frame."""
    image = _image()

    def body(producer: Producer) -> None:
        for _ in range(count):
            producer.send(image, encoding="jpeg")

    return _with_producer(fsync, count, body)


def send_many(fsync: Fsync, count: int, per_message: int) -> tuple[float, Usage, int]:
    """`Producer.send_many`, several frames a message."""
    images = [_image()] * per_message

    def body(producer: Producer) -> None:
        for _ in range(count // per_message):
            producer.send_many(images)

    return _with_producer(fsync, count // per_message * per_message, body)


def admission(fsync: Fsync, count: int) -> tuple[float, Usage, int]:
    """Admission itself, pipelined: what Redis can take from one connection."""
    frame = Frame(_image(), "jpeg", 1_700_000_000_000_000)
    with EmbeddedRedis(appendfsync=fsync) as server:
        before = Usage.now()
        seconds = push(server.url, "cam1", [frame], total=count)
        after = Usage.now()
    return count / seconds, Usage(after.cpu_s - before.cpu_s, after.peak_bytes), count


def _image() -> bytes:
    return b"\xff\xd8\xff" + np.random.default_rng(SEED).bytes(SIZE_BYTES - 3)


def _with_producer(fsync: Fsync, count: int, body: Callable[[Producer], None]) -> tuple[float, Usage, int]:
    with EmbeddedRedis(appendfsync=fsync) as server:
        settings = Settings.load(
            {}, redis_url=server.url, line=LINE, camera_budget_bytes=BUDGET, line_budget_bytes=BUDGET
        )
        with Producer("cam1", settings=settings) as producer:
            producer.send(_image())
            before = Usage.now()
            begin = time.perf_counter()
            body(producer)
            seconds = time.perf_counter() - begin
            after = Usage.now()
        return count / seconds, Usage(after.cpu_s - before.cpu_s, after.peak_bytes), count
