"""A line under a load that lasts, with the product's own worker beside it, and versions to promote meanwhile."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gaussline.worker.broker.admission import Admission, Request, Status
from gaussline.worker.broker.client import Redis, connect
from gaussline.worker.broker.registry import Registry
from gaussline.worker.broker.verdicts import Verdicts
from gaussline.worker.contract.clock import from_text
from gaussline.worker.contract.frame import Frame, encode_batch
from gaussline.worker.contract.keys import Keys
from gaussline.worker.contract.model import Model
from gaussline.worker.engine.host import Host
from gaussline.worker.settings import Settings

VERSIONS = 6
"""Versions that promotions go round: more than a worker holds."""
BUDGET = 2**33
CHUNK = 16


def host_main(settings: dict[str, Any], ready: Any, told: Any) -> None:
    """Body of a worker process."""
    host = Host(Settings.load({}, **settings))
    model = host.wait_for_model()
    assert model is not None
    host.open(model)

    def end() -> None:
        told.wait()
        host.stop()

    threading.Thread(target=end, daemon=True).start()
    ready.set()
    host.run()


@contextmanager
def working(settings: dict[str, Any]) -> Iterator[int]:
    """A worker process that is ready; its process id."""
    context = multiprocessing.get_context("spawn")
    ready, told = context.Event(), context.Event()
    process = context.Process(target=host_main, args=(settings, ready, told), daemon=True)
    process.start()
    try:
        while not ready.wait(0.5):
            if not process.is_alive():
                raise RuntimeError(f"the worker process ended with code {process.exitcode}")
        assert process.pid is not None
        yield process.pid
    finally:
        told.set()
        process.join(30.0)
        if process.is_alive():
            process.kill()


@dataclass(slots=True)
class Seen:
    """What came of the frames of one side.

    Attributes:
        latency_ms: from admission to verdict, of every frame.
        missing: admitted frames without a verdict, and those with more than one.
        versions: that judged.
        behind_ms: from each promotion to the first verdict of the version.
    """

    latency_ms: list[float] = field(default_factory=list)
    missing: int = 0
    versions: set[int] = field(default_factory=set)
    behind_ms: list[float] = field(default_factory=list)

    def add(self, other: Seen) -> None:
        """Another stretch of the same side."""
        self.latency_ms += other.latency_ms
        self.missing += other.missing
        self.versions |= other.versions
        self.behind_ms += other.behind_ms

    def summary(self) -> dict[str, float]:
        """In numbers."""
        p50, p99 = np.quantile(self.latency_ms, [0.5, 0.99])
        found = {
            "frames": float(len(self.latency_ms)),
            "missing": float(self.missing),
            "p50_ms": float(p50),
            "p99_ms": float(p99),
            "max_ms": max(self.latency_ms),
            "versions": float(len(self.versions)),
        }
        if self.behind_ms:
            found |= {"swaps": float(len(self.behind_ms)), "behind_max_ms": max(self.behind_ms)}
        return found


class Site:
    """One line with its versions, as the bench loads it."""

    def __init__(self, url: str, line: str, frames: Sequence[Frame]) -> None:
        self.url = url
        self.client: Redis = connect(url, timeout_s=60.0)
        self.line = line
        self.keys = Keys(line)
        self.registry = Registry(self.client, line)
        self._door = Admission(self.client, line, "cam1", camera_budget_bytes=BUDGET, line_budget_bytes=BUDGET)
        self._epoch = self._door.open()
        self._next = 0
        self._frames = frames

    def publish(self, models: Sequence[Model]) -> None:
        """Versions, the first of them stable."""
        for model in models:
            self.registry.publish("default", model.to_artefact().data, by="bench")
        self.registry.promote("default", 1, by="bench")

    def request(self) -> Request:
        """The camera's next frame."""
        number, self._next = self._next, self._next + 1
        frame = self._frames[number % len(self._frames)]
        return Request(self._epoch, number, 1, encode_batch("cam1", self._epoch, number, [frame]))

    def push(self, count: int) -> None:
        """A backlog."""
        for start in range(0, count, CHUNK):
            requests = [self.request() for _ in range(min(CHUNK, count - start))]
            assert all(answer.status is Status.ADMITTED for answer in self._door.admit_many(requests))

    def drained(self, within_s: float = 120.0) -> float:
        """Seconds until nothing is in flight."""
        begin = time.perf_counter()
        while self.client.xlen(self.keys.frames("cam1")):
            if time.perf_counter() - begin > within_s:
                raise RuntimeError("the worker did not finish in time")
            time.sleep(0.005)
        return time.perf_counter() - begin

    def load(self, rate: float, seconds: float, seed: int, *, promote_every_s: float | None = None) -> Seen:
        """Open-loop arrivals; the same ones for the same seed."""
        after = Verdicts(self.client, self.line).last_id()
        gaps = np.random.default_rng(seed).exponential(1.0 / rate, int(rate * seconds))
        first, stopping = self._next, threading.Event()
        moved: dict[str, int] = {}

        def promote() -> None:
            client = connect(self.url)
            registry = Registry(client, self.line)
            number = 1
            while not stopping.wait(promote_every_s):
                number = number % VERSIONS + 1
                pointer = registry.promote("default", number, by="bench")
                moved[pointer.moved_at] = number
            client.close()

        thread = threading.Thread(target=promote, daemon=True)
        if promote_every_s is not None:
            thread.start()
        due = time.perf_counter()
        for gap in gaps:
            due += gap
            time.sleep(max(0.0, due - time.perf_counter()))
            assert self._door.admit(self.request()).status is Status.ADMITTED
        stopping.set()
        if promote_every_s is not None:
            thread.join()
        self.drained()
        return self._seen(after, range(first, self._next), moved)

    def close(self) -> None:
        """Let go of the connection."""
        self.client.close()

    def _seen(self, after: str, sequences: range, moved: dict[str, int]) -> Seen:
        verdicts = [verdict for _, verdict in Verdicts(self.client, self.line).read(after, count=10**6)]
        ids = [verdict["id"] for verdict in verdicts if verdict["decision"] != "not_judged"]
        wanted = {f"cam1:{self._epoch}:{number}" for number in sequences}
        missing = len(wanted - set(ids)) + len(ids) - len(set(ids))
        judged = [(from_text(v["judged_at"]), v["model"]["version"]) for v in verdicts if v["model"]]
        behind = []
        for at, number in moved.items():
            first = next((when for when, version in judged if version == number and when >= from_text(at)), None)
            if first is not None:
                behind.append((first - from_text(at)) / 1000.0)
        latency = [(from_text(v["judged_at"]) - from_text(v["admitted_at"])) / 1000.0 for v in verdicts]
        return Seen(latency, missing, {version for _, version in judged}, behind)
