"""What the guards cost, this worker with and without them in turns: make bench-guards; python -m bench.guards --help.

Three workers, otherwise alike:

    with        as the product runs
    in-process  the same, but images are decoded in the worker itself (GAUSSLINE_DECODE_ISOLATION=false)
    without     images are decoded in the worker itself, no isolated process stands by, nothing is claimed, audited or
                reconciled, no heart beats, and settling acknowledges, deletes, publishes and counts what it is told,
                in one script, but looks at nothing first

The last one loses and doubles frames, and dies of a codec; it is here to be measured. The guards of admission are on
for all three: the backlog is pushed before the time is taken.

Two of them are up and warm, each with a Redis of its own, and take turns of a second or two: one judges a backlog, the
other is held still (SIGSTOP). What the machine does besides touches both turns of a pair, and of many pairs the median
is told, with the interval that the median of all such pairs lies in at 95 % (by order statistics, whatever their
distribution). Told are the ratios of frames a second, and of the CPU time of a frame in the worker, its decoding
processes and Redis together: on a machine whose cores are all at work the one is the other's inverse, and the second
one bears company.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgpack
import numpy as np
from rich.console import Console

from bench.line import LINE, config, decode_threads, drained, last_verdict_s, push, serving
from bench.record import machine
from bench.sides import SEED, WAIT_S, Fsync, Setup, fit, make_judge, make_null, parts, publish
from gaussline.worker.broker.client import Redis, connect, time_us
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.broker.heartbeat import Heartbeat
from gaussline.worker.broker.intake import Intake, Message
from gaussline.worker.broker.settle import Settlement, Settler
from gaussline.worker.contract.frame import Frame
from gaussline.worker.contract.keys import Keys
from gaussline.worker.contract.limits import ImageLimits, MessageLimits
from gaussline.worker.engine.clock import RedisClock
from gaussline.worker.engine.isolated_process import IsolatedProcess
from gaussline.worker.engine.memory import settle_memory
from gaussline.worker.engine.worker import Worker
from gaussline.worker.vision.backbones import load_backbone
from gaussline.worker.vision.decode_pool import DecodePool
from gaussline.worker.vision.runtime import choose_runtime
from gaussline.worker.vision.weights import WeightsSource

BOUND: Final = 0.95
CAMERAS: Final = 4
WARM: Final = 64
"""Frames that a worker judges before it begins."""
Make = Callable[[Redis], tuple[Any, int, int]]
WITH, IN_PROCESS, WITHOUT = "with", "in-process", "without"
_UNGUARDED: Final = """
local prefix, answers = ARGV[1], {}
local now = redis.call('TIME')
for i = 2, #ARGV do
  local m = cmsgpack.unpack(ARGV[i])
  redis.call('XACK', prefix .. 'frames:' .. m.camera, 'workers', m.id)
  redis.call('XDEL', prefix .. 'frames:' .. m.camera, m.id)
  redis.call('UNLINK', prefix .. 'payload:' .. m.camera .. ':' .. m.id)
  for _, v in ipairs(m.verdicts) do
    redis.call('XADD', KEYS[1], '*', 'id', v[1], 'camera', m.camera, 'decision', v[2],
      'json', v[3] .. ',"judged_at":"' .. now[1] .. '"}')
    redis.call('HINCRBY', prefix .. 'camera:' .. m.camera, v[2], 1)
  end
  answers[#answers + 1] = 1
end
return answers
"""


class UnguardedSettler(Settler):
    """Publishes what it is told."""

    def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """One script, no look at anything."""
        keys = Keys(self.line)
        packed = [
            msgpack.packb({"camera": item.camera, "id": item.entry_id, "verdicts": item.verdicts}, use_bin_type=False)
            for item in settlements
        ]
        client: Any = self.client
        answers = client.eval(_UNGUARDED, 1, keys.verdicts, keys.prefix, *packed)
        return [answer == 1 for answer in answers]


class UnguardedIntake(Intake):
    """Takes, and looks for nothing that was left behind."""

    def claim(self, *, max_frames: int, max_bytes: int) -> list[Message]:
        """Nothing."""
        return []

    def reconcile(self) -> tuple[int, int]:
        """Nothing."""
        return 0, 0


def serve(
    url: str,
    make: Make,
    name: str,
    ready: Any,
    told: Any,
    wait_s: float,
    *,
    arm: str,
) -> None:
    """Body of a worker process; see `bench.line.worker_main`."""
    client = connect(url)
    judge, batch, lanes = make(client)
    guarded = arm != WITHOUT
    if arm == WITH and hasattr(judge, "pool"):
        judge.pool = DecodePool(ImageLimits(), processes=decode_threads(judge) or lanes)
    make_intake, make_settler = (Intake, Settler) if guarded else (UnguardedIntake, UnguardedSettler)
    clock = RedisClock(lambda: time_us(client))
    isolated = IsolatedProcess(dict, limits=MessageLimits(), now_us=clock) if guarded else None
    if isolated is not None:
        isolated.prepare()
        assert isolated.pid is not None
        _idle(isolated.pid)
    worker: Worker[Any] = Worker(
        make_intake(connect(url), LINE, name),
        make_settler(connect(url), LINE),
        judge,
        config(judge, name, batch, lanes, wait_s, keep_pass_share=0.0),
        now_us=clock,
        isolated=isolated,
    )
    heartbeat = Heartbeat(connect(url), LINE, name) if guarded else None
    if heartbeat is not None:
        heartbeat.start()
    settle_memory()
    worker.start()
    ready.set()
    told.wait()
    worker.stop()
    worker.join()
    if heartbeat is not None:
        heartbeat.stop()


def _idle(pid: int) -> None:
    """Wait until a process that stands by has imported what it needs: a cost of the start, not of frames."""
    used = -1
    while True:
        now = _ticks(str(pid))
        if now == used > 0:
            return
        used = now
        time.sleep(0.5)


@dataclass(slots=True)
class Arm:
    """One of the two: every turn's frames a second, and milliseconds of CPU a frame."""

    name: str
    server: EmbeddedRedis
    client: Redis
    pid: int
    rates: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)

    def turn(self, frames: Sequence[Frame], total: int) -> None:
        """A backlog that lies there when it begins; it is held still before and afterwards."""
        cameras = [f"cam{number}" for number in range(CAMERAS)]
        for camera in cameras:
            push(self.server.url, camera, frames, total=total // CAMERAS)
        used_s, begin_us = self._cpu_s(), time_us(self.client)
        os.kill(self.pid, signal.SIGCONT)
        drained(self.client, cameras, every_s=0.1)
        seconds = last_verdict_s(self.client) - begin_us / 1e6
        os.kill(self.pid, signal.SIGSTOP)
        self.rates.append(total // CAMERAS * CAMERAS / seconds)
        self.cpu_ms.append(1000.0 * (self._cpu_s() - used_s) / total)
        self.client.xtrim(Keys(LINE).verdicts, 0, approximate=False)

    def _cpu_s(self) -> float:
        """CPU seconds of the worker, every process below it that lives, and Redis, so far."""
        return sum(_ticks(pid) for pid in (str(self.server.pid), *_family(str(self.pid)))) / os.sysconf("SC_CLK_TCK")


def _family(pid: str) -> list[str]:
    """A process and those below it: a decoding process forks once more."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [pid, *(each for task in tasks for child in task.read_text().split() for each in _family(child))]


def _ticks(pid: str) -> int:
    """Of all threads of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@contextmanager
def arm(name: str, fsync: Fsync, make: Make, artefact: bytes | None, frames: Sequence[Frame]) -> Iterator[Arm]:
    """A worker that is warm, and held still."""
    with EmbeddedRedis(appendfsync=fsync) as server:
        client = server.client(timeout_s=60.0)
        publish(client, artefact)
        context = multiprocessing.get_context("spawn")
        ready, told = context.Event(), context.Event()
        with serving(partial(serve, arm=name), server.url, make, "bench-1", ready, told, WAIT_S) as process:
            push(server.url, "warm", frames, total=WARM)
            drained(client, ["warm"])
            assert process.pid is not None
            os.kill(process.pid, signal.SIGSTOP)
            try:
                yield Arm(name, server, client, process.pid)
            finally:
                os.kill(process.pid, signal.SIGCONT)


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The median of a sample, and the order statistics between which that of its source lies at 95 % or more.

    The number of values under the true median is binomial with 1/2, whatever their distribution (the sign test). Fewer
    than six values have no such interval: their ends are told.
    """
    ordered, count = sorted(values), len(values)
    below, place = 0.0, 0
    while (below := below + math.comb(count, place) / 2**count) <= 0.025:
        place += 1
    place = max(0, place - 1)
    return statistics.median(ordered), ordered[place], ordered[count - 1 - place]


def compare(
    console: Console,
    of: str,
    arms: tuple[str, str],
    fsync: Fsync,
    make: Make,
    artefact: bytes | None,
    frames: Sequence[Frame],
    total: int,
    seconds: float,
) -> dict[str, Any]:
    """Turns of two arms for so long, in the order one, other, other, one; what it came to, told and as a dictionary."""
    with arm(arms[0], fsync, make, artefact, frames) as one, arm(arms[1], fsync, make, artefact, frames) as other:
        for each in (one, other):  # a first turn each that does not count
            each.turn(frames, total)
            each.rates.clear()
            each.cpu_ms.clear()
        end_s, pairs = time.monotonic() + seconds, 0
        while time.monotonic() < end_s:
            for each in (one, other) if pairs % 2 == 0 else (other, one):
                each.turn(frames, total)
            pairs += 1
    for each in (one, other):
        rate, cpu_ms = statistics.median(each.rates), statistics.median(each.cpu_ms)
        console.print(f"{of}, {each.name:10} {rate:8.1f} frames/s, {cpu_ms:6.2f} ms of CPU a frame", highlight=False)
    told: dict[str, Any] = {"arms": list(arms), "rates": [one.rates, other.rates], "cpu_ms": [one.cpu_ms, other.cpu_ms]}
    pairs_of = {
        "by_time": [with_it / without for with_it, without in zip(one.rates, other.rates, strict=True)],
        "by_cpu": [without / with_it for with_it, without in zip(one.cpu_ms, other.cpu_ms, strict=True)],
    }
    for name, values in pairs_of.items():
        told[name] = median, low, high = median_interval(values)
        console.print(
            f"{of}, {arms[0]} / {arms[1]}, {name.replace('_', ' ')}: {median:.3f} ({low:.3f} to {high:.3f}) of "
            f"{pairs} pairs",
            highlight=False,
        )
    return told


def main() -> None:
    """One comparison, or two, and what was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.guards", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="mobilenet_v2", help="none leaves it out")
    parser.add_argument("--weights", help="state-dict file; none takes seeded random weights: as good for speed")
    parser.add_argument("--mode", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--arms", default=f"{WITH},{WITHOUT}", help=f"two of {WITH}, {IN_PROCESS}, {WITHOUT}")
    parser.add_argument("--frames", type=int, default=160, help="frames of a turn with a backbone; default 160")
    parser.add_argument("--null-frames", type=int, default=0, help="of a turn without a backbone; 0 leaves it out")
    parser.add_argument("--seconds", type=float, default=180.0, help="of a comparison; default 180")
    parser.add_argument("--fsync", default="always", choices=["always", "everysec", "no"])
    parser.add_argument("--output", type=Path, default=Path(".build/bench/guards.json"))
    options = parser.parse_args()
    first, second = options.arms.split(",")
    console = Console(width=118)
    console.print(f"{machine()}; appendfsync {options.fsync}", highlight=False)
    told: dict[str, Any] = {"machine": machine()}
    if options.backbone != "none":
        source = WeightsSource.parse(options.weights) if options.weights else WeightsSource(random_seed=SEED)
        runtime = choose_runtime(load_backbone(options.backbone, source, numeric_mode=options.mode), device="cpu")
        console.print(f"{options.backbone}, {options.mode}: {runtime}", highlight=False)
        setup = Setup(options.backbone, options.weights, options.mode, runtime)
        frames = parts(200)
        artefact = fit(setup, frames).to_artefact().data
        make = partial(make_judge, setup)
        told[options.backbone] = compare(
            console,
            options.backbone,
            (first, second),
            options.fsync,
            make,
            artefact,
            frames,
            options.frames,
            options.seconds,
        )
        console.print(f"asked for with a backbone: at least {BOUND}", highlight=False)
    if options.null_frames:
        grey = np.random.default_rng(SEED).integers(0, 256, (64, 224, 224), dtype=np.uint8)
        raw = [Frame(g.tobytes(), "raw", 1_700_000_000_000_000, shape=(224, 224), dtype="uint8") for g in grey]
        told["null"] = compare(
            console,
            "null backbone",
            (first, second),
            options.fsync,
            make_null,
            None,
            raw,
            options.null_frames,
            options.seconds,
        )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(told, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
