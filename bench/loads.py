"""A worker under a load that lasts: its latency at open-loop arrivals, and its memory over many frames."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.line import LINE, drained, push, serving, worker_main
from bench.sides import SEED, WAIT_S, Fsync, make_null, publish
from gaussline.worker.broker.admission import Admission, Request
from gaussline.worker.broker.client import Redis
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.broker.verdicts import Verdicts
from gaussline.worker.contract.clock import from_text
from gaussline.worker.contract.frame import Frame, encode_batch
from gaussline.worker.contract.keys import Keys

EARLY = 10
"""The first mark of the memory run is a tenth of its frames."""
WINDOW_S = 2.0
"""Resident memory at a mark is the median over this time: what is in hand at one moment comes and goes."""


def half_load(
    fsync: Fsync,
    make: Callable[[Redis], tuple[Any, int, int]],
    artefact: bytes,
    frames: Sequence[Frame],
    rate: float,
    number: int = 0,
) -> dict[str, float]:
    """Open-loop arrivals at `rate`: latency from admission to verdict, both by Redis's clock, in milliseconds."""
    with EmbeddedRedis(appendfsync=fsync) as server:
        client = server.client(timeout_s=60.0)
        publish(client, artefact)
        door = Admission(client, LINE, "cam1", camera_budget_bytes=2**33, line_budget_bytes=2**33)
        context = multiprocessing.get_context("spawn")
        ready, told = context.Event(), context.Event()
        with serving(worker_main, server.url, make, "bench-1", ready, told, WAIT_S):
            push(server.url, "warm", frames[:64])
            drained(client, ["warm"])
            last = Verdicts(client, LINE).last_id()
            epoch = door.open()
            gaps = np.random.default_rng(SEED + number).exponential(1.0 / rate, len(frames))
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


def memory_over_time(fsync: Fsync, total: int) -> dict[str, float]:
    """Resident memory of a worker with a null backbone, early and late in a stream of small frames, in megabytes."""
    frames = [Frame(bytes(64 * 64), "raw", 1_700_000_000_000_000, shape=(64, 64), dtype="uint8")]
    cameras = [f"cam{number}" for number in range(4)]
    with EmbeddedRedis(appendfsync=fsync) as server:
        client = server.client(timeout_s=60.0)
        context = multiprocessing.get_context("spawn")
        ready, told = context.Event(), context.Event()
        with serving(worker_main, server.url, make_null, "bench-1", ready, told, WAIT_S) as process:
            assert process.pid is not None
            own = total * 6 // 5 // len(cameras)  # so that it still works at the last mark
            pushing = [
                threading.Thread(target=push, args=(server.url, camera, frames), kwargs={"total": own}, daemon=True)
                for camera in cameras
            ]
            for thread in pushing:
                thread.start()
            marks = {}
            for name, mark in (("early_mb", total // EARLY), ("late_mb", total)):
                while client.xlen(Keys(LINE).verdicts) < mark:
                    time.sleep(0.02)
                marks[name] = _resident_mb(process.pid)
            for thread in pushing:
                thread.join()
        return {"frames": float(total), **marks, "ratio": marks["late_mb"] / marks["early_mb"]}


def _resident_mb(pid: int) -> float:
    page, samples = os.sysconf("SC_PAGE_SIZE"), []
    end = time.perf_counter() + WINDOW_S
    while time.perf_counter() < end:
        samples.append(int(Path(f"/proc/{pid}/statm").read_text("utf-8").split()[1]) * page / 1e6)
        time.sleep(0.05)
    return statistics.median(samples)
