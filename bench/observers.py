"""What who listens to a worker costs it, metrics or spans: python -m bench.observers metrics|traces|nothing.

One worker on a backlog, with a null backbone, where nothing else takes time. Its listeners change between two sides
every tenth of a second, and periods that follow one another are a pair: what the machine does beside it touches both.
`nothing` has metrics on both sides, and tells how far such a run can see.

Such pairs differ by more than what is looked for. So the listeners' own CPU time is taken too, call by call in the
running worker, less what the looks at the clock cost where nobody listens, and told as a share of the CPU time of its
whole process. A scrape is timed apart.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import random
import signal
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from bench.discard import Discard
from bench.line import LINE, config, drained, push, serving
from bench.null_judge import NullJudge
from bench.sides import SEED, WAIT_S, traced
from gaussline.worker.broker.client import connect, time_us
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.broker.intake import Intake
from gaussline.worker.broker.settle import Settler
from gaussline.worker.contract.frame import Frame
from gaussline.worker.contract.verdict import Verdict
from gaussline.worker.engine.clock import RedisClock
from gaussline.worker.engine.memory import settle_memory
from gaussline.worker.engine.observer import Observer, Observers
from gaussline.worker.engine.worker import Worker
from gaussline.worker.telemetry.metrics import Metrics

SIDE = 224
CAMERAS = 4
BATCH = 64
FILL = 16_000
"""Frames of one backlog: some 800 MB in Redis, two seconds of work."""
SCRAPE_S = 5.0
"""How often the shipped configuration scrapes."""
RESULT = "bench:pairs"


@dataclass(frozen=True, slots=True)
class Period:
    """What a worker did while one side listened: wall seconds, CPU seconds of its process and of listeners, frames."""

    seconds: float
    cpu_s: float
    listening_s: float
    frames: int


class Timed(Observer):
    """Passes everything on, and takes the CPU time of each call. Every hook has one thread here: there is one lane."""

    def __init__(self, inner: Observer) -> None:
        self._spent_ns: dict[str, int] = {}
        for name in [name for name in vars(Observer) if not name.startswith("_")]:
            setattr(self, name, self._timed(name, getattr(inner, name)))

    @property
    def spent_s(self) -> float:
        """CPU seconds of all calls."""
        return sum(self._spent_ns.copy().values()) / 1e9

    def _timed(self, name: str, hook: Callable[..., None]) -> Callable[..., None]:
        self._spent_ns[name] = 0

        def call(*args: object) -> None:
            begin = time.thread_time_ns()
            hook(*args)
            self._spent_ns[name] += time.thread_time_ns() - begin

        return call


class Switch(Observer):
    """Lets one of two observers hear everything, and counts frames for both alike."""

    def __init__(self, off: Observer, on: Observer) -> None:
        self._sides = (Timed(off), Timed(on))
        self._hooks = [name for name in vars(Observer) if not name.startswith("_") and name != "settled"]
        self.frames = 0
        self.turn(on=False)

    def turn(self, *, on: bool) -> None:
        """From now on `on` listens, or `off`. The engine looks a hook up at each call, so nothing stands in between."""
        side = self._sides[on]
        for name in self._hooks:
            setattr(self, name, getattr(side, name))
        self._settled = side.settled

    def settled(self, verdicts: Sequence[Verdict], seconds: float, now_us: int) -> None:
        self.frames += len(verdicts)
        self._settled(verdicts, seconds, now_us)

    def listening_s(self, *, on: bool) -> float:
        """CPU seconds of what listens on one side."""
        return self._sides[on].spent_s


def main() -> None:
    """Run for a while, and print what it cost as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.observers", description=__doc__)
    parser.add_argument("what", choices=("metrics", "traces", "nothing"))
    parser.add_argument("--seconds", type=float, default=150.0, help="of the whole run, filling included")
    parser.add_argument("--period-ms", type=float, default=100.0)
    parser.add_argument("--recorded", type=float, default=0.0, help="share of the frames that carry a sampled trace")
    options = parser.parse_args()
    raw = Frame(bytes(SIDE * SIDE), "raw", 1_700_000_000_000_000, shape=(SIDE, SIDE), dtype="uint8")
    frames = traced([raw] * 64, options.recorded)
    pairs, scrape_s = run(options.what, frames, options.seconds, options.period_ms / 1000.0)
    print(json.dumps(told(pairs, scrape_s) | {"what": options.what, "recorded": options.recorded}, indent=1))


def told(pairs: Sequence[tuple[Period, Period]], scrape_s: float) -> dict[str, Any]:
    """Costs as medians over pairs (off, on), with their 95 % intervals by order statistics."""
    rate = [1.0 - (on.frames / on.seconds) / (off.frames / off.seconds) for off, on in pairs]
    cpu = [(on.cpu_s / on.frames) / (off.cpu_s / off.frames) - 1.0 for off, on in pairs]
    cpu_off = [off.cpu_s / off.frames for off, _ in pairs]
    # What the looks at the clock cost is on both sides.
    listening = [1e6 * (on.listening_s / on.frames - off.listening_s / off.frames) for off, on in pairs]
    return {
        "pairs": len(pairs),
        "frames_per_second_off": statistics.median(off.frames / off.seconds for off, _ in pairs),
        "cpu_us_per_frame_off": 1e6 * statistics.median(cpu_off),
        "cost_share_of_rate": median_and_interval(rate),
        "cost_share_of_cpu": median_and_interval(cpu),
        "listening_us_per_frame": median_and_interval(listening),
        "listening_share_of_cpu": statistics.median(listening) * 1e-6 / statistics.median(cpu_off),
        "scrape_cpu_s": scrape_s,
        "scrape_share": scrape_s / SCRAPE_S,
    }


def median_and_interval(values: Sequence[float]) -> dict[str, float]:
    """The median, and the order statistics between which it lies in 95 of 100 samples (binomial, normal limit)."""
    ordered, count = sorted(values), len(values)
    reach = 1.96 * math.sqrt(count) / 2.0
    low, high = max(0, math.floor(count / 2.0 - reach)), min(count - 1, math.ceil(count / 2.0 + reach))
    return {"median": statistics.median(ordered), "from": ordered[low], "to": ordered[high]}


def run(
    what: str, frames: Sequence[Frame], seconds: float, period_s: float
) -> tuple[list[tuple[Period, Period]], float]:
    """Fill and drain until the time is over: pairs (off, on), and CPU seconds of a scrape."""
    end = time.monotonic() + seconds
    cameras = [f"cam{number}" for number in range(CAMERAS)]
    context = multiprocessing.get_context("spawn")
    ready, stop, admitted = context.Event(), context.Event(), context.Value("q", 0)
    with EmbeddedRedis(appendfsync="everysec") as server:
        client = server.client(timeout_s=60.0)
        with serving(serve, server.url, what, period_s, admitted, ready, stop) as process:
            assert process.pid is not None
            while time.monotonic() < end:
                # A worker that stands still costs the filling nothing, and the filling costs it nothing.
                os.kill(process.pid, signal.SIGSTOP)
                for camera in cameras:
                    push(server.url, camera, frames, total=FILL // CAMERAS)
                admitted.value += FILL
                os.kill(process.pid, signal.SIGCONT)
                drained(client, cameras)
        result = json.loads(client.get(RESULT))
    pairs = [(Period(**off), Period(**on)) for off, on in result["pairs"]]
    return pairs, result["scrape_s"]


def serve(url: str, what: str, period_s: float, admitted: Any, ready: Any, stop: Any) -> None:
    """Body of the worker process."""
    client = connect(url)
    registry = CollectorRegistry()
    switch = Switch(*sides(what, registry))
    judge = NullJudge()
    worker: Worker[Any] = Worker(
        Intake(connect(url), LINE, "bench"),
        Settler(connect(url), LINE),
        judge,
        config(judge, "bench", BATCH, 1, WAIT_S),
        now_us=RedisClock(lambda: time_us(client)),
        observer=switch,
    )
    settle_memory()
    worker.start()
    ready.set()
    pairs = alternate(switch, admitted, stop, period_s)
    worker.stop()
    worker.join()
    plain = [[asdict(period) for period in pair] for pair in pairs]
    client.set(RESULT, json.dumps({"pairs": plain, "scrape_s": scrape_cpu_s(registry)}))


def sides(what: str, registry: CollectorRegistry) -> tuple[Observer, Observer]:
    """Who listens off and on."""
    metrics = Metrics(registry, LINE, "bench")
    if what == "metrics":
        return Observer(), metrics
    if what == "nothing":
        return metrics, metrics
    from gaussline.worker.telemetry.traces import TraceObserver
    from gaussline.worker.tracing.spans import Spans

    traces = TraceObserver(Spans(Discard(), "bench", LINE, "bench"))
    # A worker has other listeners too, so that calls are handed round with and without traces.
    return Observers(metrics, Observer()), Observers(metrics, traces)


def alternate(switch: Switch, admitted: Any, stop: Any, period_s: float) -> list[tuple[Period, Period]]:
    """Turn the switch until told to stop; the pairs (off, on) during which there was work all the time."""
    rng = random.Random(SEED)
    pairs = []
    while not stop.is_set():
        first = rng.random() < 0.5  # neither side is always the later one
        found: dict[bool, Period] = {}
        for on in (first, not first):
            switch.turn(on=on)
            begin_s, begin_cpu_s, before = time.perf_counter(), time.process_time(), switch.frames
            listened_s = switch.listening_s(on=on)
            time.sleep(period_s)
            frames, seconds = switch.frames - before, time.perf_counter() - begin_s
            waiting = admitted.value - switch.frames
            # Longer ones held the filling; where little waits the worker may have looked for work.
            if frames and seconds < 1.5 * period_s and waiting > 2 * BATCH:
                cpu_s, listening_s = time.process_time() - begin_cpu_s, switch.listening_s(on=on) - listened_s
                found[on] = Period(seconds, cpu_s, listening_s, frames)
        if len(found) == 2:
            pairs.append((found[False], found[True]))
    return pairs


def scrape_cpu_s(registry: CollectorRegistry) -> float:
    """CPU seconds of one scrape's text, median of twenty."""
    took = []
    for _ in range(20):
        begin = time.thread_time()
        generate_latest(registry)
        took.append(time.thread_time() - begin)
    return statistics.median(took)


if __name__ == "__main__":
    main()
