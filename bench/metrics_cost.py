"""What metrics cost: the same worker with and without them, in turns: python -m bench.metrics_cost [--backbone NAME].

With a null backbone, where nothing else takes time, and with a real one; a scraper asks every five seconds meanwhile.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import statistics
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry

from bench.line import LINE, Usage, config, drained, push, serving
from bench.sides import SEED, WAIT_S, Setup, fit, make_judge, make_null, parts, publish
from gaussline.worker.broker.client import Redis, connect, time_us
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.broker.intake import Intake
from gaussline.worker.broker.settle import Settler
from gaussline.worker.contract.frame import Frame
from gaussline.worker.engine.clock import RedisClock
from gaussline.worker.engine.memory import settle_memory
from gaussline.worker.engine.observer import Observer
from gaussline.worker.engine.worker import Worker
from gaussline.worker.telemetry.health import Health
from gaussline.worker.telemetry.metrics import Metrics
from gaussline.worker.telemetry.server import HealthServer
from gaussline.worker.vision.backbones import load_backbone
from gaussline.worker.vision.runtime import choose_runtime
from gaussline.worker.vision.weights import WeightsSource

SIDE = 224
CAMERAS = 4
SCRAPE_S = 5.0


def main() -> None:
    """Both loads, in turns, medians, as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.metrics_cost", description=__doc__)
    parser.add_argument("--backbone", default="mobilenet_v2", help="the real one; none leaves it out")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=8_000, help="of a run with the null backbone")
    options = parser.parse_args()
    raw = [Frame(bytes(SIDE * SIDE), "raw", 1_700_000_000_000_000, shape=(SIDE, SIDE), dtype="uint8")]
    compare("null", make_null, None, raw, options.frames, options.rounds)
    if options.backbone == "none":
        return
    chosen = choose_runtime(load_backbone(options.backbone, WeightsSource(random_seed=SEED)), device="cpu", lanes=None)
    setup = Setup(options.backbone, None, "float32", chosen)
    pictures = parts(64)
    artefact = fit(setup, pictures * 4).to_artefact().data
    compare(options.backbone, partial(make_judge, setup), artefact, pictures, 400, max(2, options.rounds // 2))


def compare(
    name: str,
    make: Callable[[Redis], tuple[Any, int, int]],
    artefact: bytes | None,
    frames: Sequence[Frame],
    total: int,
    rounds: int,
) -> None:
    """Run with and without in turns, and print what it costs."""
    runs: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for number in range(rounds):
        for observed in (number % 2 == 0, number % 2 == 1):
            runs[observed].append(run(make, artefact, frames, total, observed))
    without, with_them = ([statistics.median(each) for each in zip(*runs[side], strict=True)] for side in (False, True))
    # The sides of a pair run one after the other: what the machine does in the meantime touches both.
    pairs = [observed[0] / alone[0] for observed, alone in zip(runs[True], runs[False], strict=True)]
    told = {
        "backbone": name,
        "frames_per_second": {"without": without[0], "with": with_them[0]},
        "cpu_ms_per_frame": {"without": without[1], "with": with_them[1]},
        # Both sides of a pair run one after the other: what the machine does in the meantime touches both.
        "cost_share_of_rate": 1.0 - statistics.median(pairs),
        "cost_us_per_frame": 1000.0 * (with_them[1] - without[1]),
        "runs": {str(side): runs[side] for side in runs},
    }
    print(json.dumps(told), flush=True)


def run(
    make: Callable[[Redis], tuple[Any, int, int]],
    artefact: bytes | None,
    frames: Sequence[Frame],
    total: int,
    observed: bool,
) -> tuple[float, float]:
    """One worker on a backlog: frames a second, CPU milliseconds a frame."""
    with EmbeddedRedis(appendfsync="everysec") as server:
        client = server.client(timeout_s=60.0)
        publish(client, artefact)
        context = multiprocessing.get_context("spawn")
        ready, told = context.Event(), context.Event()
        cameras = [f"cam{number}" for number in range(CAMERAS)]
        with serving(serve, server.url, make, observed, ready, told) as process:
            push(server.url, "warm", frames, total=min(total, 64))
            drained(client, ["warm"])
            assert process.pid is not None
            os.kill(process.pid, signal.SIGSTOP)
            for camera in cameras:
                push(server.url, camera, frames, total=total // CAMERAS)
            begin = time.perf_counter()
            os.kill(process.pid, signal.SIGCONT)
            drained(client, cameras)
            seconds = time.perf_counter() - begin
        return total / seconds, 1000.0 * float(client.get("bench:cpu")) / total


def serve(url: str, make: Callable[[Redis], tuple[Any, int, int]], observed: bool, ready: Any, told: Any) -> None:
    """Body of the worker process."""
    client = connect(url)
    judge, batch, lanes = make(client)
    registry = CollectorRegistry()
    observer = Metrics(registry, LINE, "bench") if observed else Observer()
    worker: Worker[Any] = Worker(
        Intake(connect(url), LINE, "bench"),
        Settler(connect(url), LINE),
        judge,
        config(judge, "bench", batch, lanes, WAIT_S),
        now_us=RedisClock(lambda: time_us(client)),
        observer=observer,
    )
    server = HealthServer("127.0.0.1", 0, registry, Health(), tuple).start()
    stopping = threading.Event()

    def scrape() -> None:
        while observed and not stopping.wait(SCRAPE_S):
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=5.0) as answer:
                answer.read()

    threading.Thread(target=scrape, daemon=True).start()
    settle_memory()
    worker.start()
    before = Usage.now()
    ready.set()
    told.wait()
    worker.stop()
    worker.join()
    stopping.set()
    client.set("bench:cpu", Usage.now().cpu_s - before.cpu_s)
    server.close()


if __name__ == "__main__":
    main()
