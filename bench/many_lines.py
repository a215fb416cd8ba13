"""Many lines on one Redis, with a null backbone: python -m bench.many_lines [--lines 1 5 20 50] [--rate 400].

Open-loop arrivals, spread evenly over all lines; every line has a worker of its own. What is measured is Redis's own
CPU time, memory and the latency from admission to verdict; beside it stands what `gaussline plan` says of that load.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.null_judge import NullJudge
from gaussline.worker.broker.admission import Admission, Request
from gaussline.worker.broker.client import Redis, connect, time_us
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.broker.intake import Intake
from gaussline.worker.broker.ledger import read_ledger
from gaussline.worker.broker.settle import Settler
from gaussline.worker.broker.verdicts import Verdicts
from gaussline.worker.commands.capacity import Measured
from gaussline.worker.contract.clock import from_text
from gaussline.worker.contract.frame import Frame, encode_batch
from gaussline.worker.contract.limits import MessageLimits
from gaussline.worker.engine.clock import RedisClock
from gaussline.worker.engine.worker import Worker, WorkerConfig

CAMERAS = 2
SIDE = 224
"""Frames are raw arrays of 224 x 224: 50 kB."""
LINES_A_PROCESS = 10


@dataclass(frozen=True, slots=True)
class Result:
    """One run."""

    lines: int
    frames_per_second: float
    redis_share: float
    planned_share: float
    memory_mb: float
    p50_ms: float
    p99_ms: float
    balanced: bool


def main() -> None:
    """Run one after the other, and print a line of JSON each."""
    parser = argparse.ArgumentParser(prog="python -m bench.many_lines", description=__doc__)
    parser.add_argument("--lines", type=int, nargs="+", default=[1, 5, 20, 50])
    parser.add_argument("--rate", type=float, default=400.0, help="frames a second of all lines together")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--measured", type=Path, help="file of bench.capacity; none: the package's own")
    options = parser.parse_args()
    measured = Measured.read(options.measured)
    for lines in options.lines:
        print(json.dumps(asdict(run(lines, options.rate, options.seconds, measured))), flush=True)


def run(lines: int, rate: float, seconds: float, measured: Measured) -> Result:
    """One Redis, `lines` lines, `rate` frames a second of all of them together."""
    names = [f"line{number}" for number in range(lines)]
    context = multiprocessing.get_context("spawn")
    with EmbeddedRedis(appendfsync="everysec") as server:
        client = server.client(timeout_s=60.0)
        told = context.Event()
        groups = [names[start : start + LINES_A_PROCESS] for start in range(0, lines, LINES_A_PROCESS)]
        ready = [context.Event() for _ in groups]
        workers = [
            context.Process(target=serve, args=(server.url, group, event, told), daemon=True)
            for group, event in zip(groups, ready, strict=True)
        ]
        for process in workers:
            process.start()
        for event in ready:
            assert event.wait(60.0), "a worker did not start"
        send(server.url, names, rate, 2.0)
        settled(client, names)
        last = {name: Verdicts(client, name).last_id() for name in names}
        info = client.info("cpu")
        before = info["used_cpu_user_main_thread"] + info["used_cpu_sys_main_thread"]
        begin = time.perf_counter()
        sent = send(server.url, names, rate, seconds)
        took = time.perf_counter() - begin
        info = client.info("cpu")
        used = info["used_cpu_user_main_thread"] + info["used_cpu_sys_main_thread"] - before
        settled(client, names)
        balanced = all(read_ledger(client, name).balances for name in names)
        memory = int(client.info("memory")["used_memory"])
        latency: list[float] = []
        for name in names:
            for _, verdict in Verdicts(client, name).read(last[name], count=10**6):
                latency.append((from_text(verdict["judged_at"]) - from_text(verdict["admitted_at"])) / 1e3)
        told.set()
        for process in workers:
            process.join(30.0)
    assert len(latency) == sent, (len(latency), sent)
    p50, p99 = np.quantile(latency, [0.5, 0.99])
    planned = sent / took * (measured.message_us + measured.byte_ns * SIDE * SIDE / 1e3) / 1e6
    return Result(lines, sent / took, float(used) / took, planned, memory / 1e6, float(p50), float(p99), balanced)


def settled(client: Redis, names: list[str]) -> None:
    """Wait until nothing is in flight."""
    end = time.monotonic() + 30.0
    while any(row.in_flight for name in names for row in read_ledger(client, name).rows):
        assert time.monotonic() < end, "the lines did not drain"
        time.sleep(0.1)


def send(url: str, names: list[str], rate: float, seconds: float) -> int:
    """Open-loop arrivals at `rate`, camera after camera; how many frames."""
    client = connect(url)
    doors: list[list[Any]] = []
    for name in names:
        for number in range(CAMERAS):
            door = Admission(client, name, f"cam{number}", camera_budget_bytes=2**33, line_budget_bytes=2**33)
            doors.append([door, door.open(), 0])
    frame = Frame(bytes(SIDE * SIDE), "raw", 1_700_000_000_000_000, shape=(SIDE, SIDE), dtype="uint8")
    count, begin = int(rate * seconds), time.perf_counter()
    for number in range(count):
        time.sleep(max(0.0, begin + number / rate - time.perf_counter()))
        own = doors[number % len(doors)]
        door, epoch, sequence = own
        own[2] += 1
        door.admit(Request(epoch, sequence, 1, encode_batch(door.camera, epoch, sequence, [frame])))
    client.close()
    return count


def serve(url: str, names: list[str], ready: Any, told: Any) -> None:
    """Body of a process: one worker for each of some lines."""
    client = connect(url)
    clock = RedisClock(lambda: time_us(client))
    workers: list[Worker[Any]] = []
    for name in names:
        config = WorkerConfig(name, "w", 64, 0.002, 64 * 2**20, 1, 1.0, 10.0, 0.0, MessageLimits(), lanes=1)
        workers.append(
            Worker(Intake(connect(url), name, "w"), Settler(connect(url), name), NullJudge(), config, now_us=clock)
        )
    for worker in workers:
        worker.start()
    ready.set()
    told.wait()
    for worker in workers:
        worker.stop()
    waiting = [threading.Thread(target=worker.join) for worker in workers]
    for thread in waiting:
        thread.start()
    for thread in waiting:
        thread.join()


if __name__ == "__main__":
    main()
