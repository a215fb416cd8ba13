"""A line to measure: an embedded Redis, frames to push, and workers in processes of their own."""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from gaussline.worker.broker.admission import Admission, Request, Status
from gaussline.worker.broker.client import Redis, connect, time_us
from gaussline.worker.broker.intake import Intake
from gaussline.worker.broker.settle import Settler
from gaussline.worker.broker.verdicts import Verdicts
from gaussline.worker.contract.frame import Frame, encode_batch
from gaussline.worker.contract.keys import Keys
from gaussline.worker.contract.limits import MessageLimits
from gaussline.worker.engine.clock import RedisClock
from gaussline.worker.engine.host import decoders
from gaussline.worker.engine.memory import settle_memory
from gaussline.worker.engine.observer import Observer
from gaussline.worker.engine.worker import Worker, WorkerConfig
from gaussline.worker.settings import DECODERS

LINE = "bench"
BUDGET = 8 * 2**30
PIPELINE = 16


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process used up to one moment: CPU seconds and peak resident bytes."""

    cpu_s: float
    peak_bytes: int

    @classmethod
    def now(cls) -> Usage:
        """Of this process."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        # Not ru_maxrss: a child inherits that of the process it was started from.
        peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return cls(used.ru_utime + used.ru_stime, int(peak.split()[1]) * 1024)


def push(url: str, camera: str, frames: Sequence[Frame], *, per_message: int = 1, total: int | None = None) -> float:
    """Admit frames as fast as admission takes them; the seconds it took. Frames are repeated up to `total`."""
    client = connect(url)
    door = Admission(client, LINE, camera, camera_budget_bytes=BUDGET, line_budget_bytes=BUDGET)
    epoch = door.open()
    count = total or len(frames)
    begin = time.perf_counter()
    sequence = 0
    while sequence < count:
        requests: list[Request] = []
        while len(requests) < PIPELINE and sequence < count:
            chunk = [frames[(sequence + i) % len(frames)] for i in range(min(per_message, count - sequence))]
            requests.append(Request(epoch, sequence, len(chunk), encode_batch(camera, epoch, sequence, chunk)))
            sequence += len(chunk)
        for answer in door.admit_many(requests):
            if answer.status is not Status.ADMITTED:
                raise RuntimeError(f"the bench's frames were not admitted: {answer}")
    seconds = time.perf_counter() - begin
    client.close()
    return seconds


def decode_threads(judge: Any) -> int:
    """As a worker decides it; a judge without a backbone has the threads that a GPU would have."""
    return decoders(None, judge.extractor.runtime) if hasattr(judge, "extractor") else DECODERS


def config(
    judge: Any, name: str, batch: int, lanes: int, wait_s: float, *, keep_pass_share: float = 0.01
) -> WorkerConfig:
    """How the workers of the benches run."""
    return WorkerConfig(
        line=LINE,
        name=name,
        batch_max_frames=batch,
        batch_wait_s=wait_s,
        intake_bytes=64 * 2**20,
        decode_threads=decode_threads(judge),
        claim_every_s=1.0,
        drain_s=10.0,
        keep_pass_share=keep_pass_share,
        message_limits=MessageLimits(),
        lanes=lanes,
    )


def worker_main(
    url: str,
    make_judge: Callable[[Redis], tuple[Any, int, int]],
    name: str,
    ready: Any,
    told: Any,
    wait_s: float,
    observe: Callable[[], Observer] | None = None,
) -> None:
    """Body of a worker process: serve until told to stop, then tell what it used."""
    client = connect(url)
    judge, batch, lanes = make_judge(client)
    worker: Worker[Any] = Worker(
        Intake(connect(url), LINE, name),
        Settler(connect(url), LINE),
        judge,
        config(judge, name, batch, lanes, wait_s),
        now_us=RedisClock(lambda: time_us(client)),
        observer=None if observe is None else observe(),
    )
    settle_memory()
    before = Usage.now()
    worker.start()
    ready.set()
    told.wait()
    worker.stop()
    worker.join()
    after = Usage.now()
    client.set("bench:usage", f"{after.cpu_s - before.cpu_s} {after.peak_bytes}")


@contextmanager
def serving(target: Callable[..., None], *args: Any) -> Iterator[BaseProcess]:
    """A worker process that is ready; it is told to stop at the end. `target(…, ready, told, …)` finds them in args."""
    process = multiprocessing.get_context("spawn").Process(target=target, args=args, daemon=True)
    process.start()
    try:
        ready = next(arg for arg in args if hasattr(arg, "is_set"))
        while not ready.wait(0.5):
            if not process.is_alive():
                raise RuntimeError(f"the worker process ended with code {process.exitcode}")
        yield process
    finally:
        events = [arg for arg in args if hasattr(arg, "is_set")]
        events[-1].set()
        process.join(30.0)
        if process.is_alive():
            process.kill()


def drained(client: Redis, cameras: Sequence[str], deadline_s: float = 300.0, every_s: float = 0.02) -> float:
    """Wait until nothing is in flight; the seconds from now. Asks for lengths: a long ledger would cost Redis."""
    begin = time.perf_counter()
    while any(client.xlen(Keys(LINE).frames(camera)) for camera in cameras):
        if time.perf_counter() - begin > deadline_s:
            raise RuntimeError("the worker did not finish in time")
        time.sleep(every_s)
    return time.perf_counter() - begin


def last_verdict_s(client: Redis) -> float:
    """When the newest verdict was published, by Redis's clock, in seconds."""
    return int(Verdicts(client, LINE).last_id().partition("-")[0]) / 1000.0


def usage_of_worker(client: Redis) -> Usage:
    """What the last worker process told of itself."""
    cpu, peak = client.get("bench:usage").split()
    return Usage(float(cpu), int(peak))
