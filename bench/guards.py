"""What the guards cost, this worker with and without them in turns: make bench-guards; python -m bench.guards --help.

Three workers, otherwise alike:

    with        as the product runs
    in-process  the same, but images are decoded in the worker itself (GAUSSLINE_DECODE_ISOLATION=false)
    without     images are decoded in the worker itself, no isolated process stands by, nothing is claimed, audited or
                reconciled, no heart beats, and settling acknowledges, deletes, publishes and counts what it is told,
                in one script, but looks at nothing first

The last one loses and doubles frames, and dies of a codec; it is here to be measured. The guards of admission are on
for all three: the backlog is pushed before the time is taken.

Told are frames a second, and the CPU time of a frame in the worker, its decoding processes and Redis together: on a
machine whose cores are all at work the one is the other's inverse, and the second one bears company.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgpack
import numpy as np
from rich.console import Console

from bench.line import LINE, Usage, config, decode_threads
from bench.record import machine
from bench.sides import SEED, Setup, fit, make_judge, make_null, parts, run_worker
from gaussline.worker.broker.client import Redis, connect, time_us
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
WARM: Final = 64
"""Frames that `run_worker` lets a worker judge before it begins."""
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
    make: Callable[[Redis], tuple[Any, int, int]],
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
    before = _cpu_s(client)
    worker.start()
    ready.set()
    told.wait()
    used_s = _cpu_s(client) - before
    worker.stop()
    worker.join()
    if heartbeat is not None:
        heartbeat.stop()
    client.set("bench:usage", f"{used_s} {Usage.now().peak_bytes}")


def _cpu_s(client: Redis) -> float:
    """CPU seconds of this process, its children that live, and Redis, so far."""
    ticks = 0
    for child in (pid for tasks in Path("/proc/self/task").glob("*/children") for pid in tasks.read_text().split()):
        fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    told = client.info("cpu")
    redis_s = float(told["used_cpu_user"]) + float(told["used_cpu_sys"])
    return Usage.now().cpu_s + ticks / os.sysconf("SC_CLK_TCK") + redis_s


def _idle(pid: int) -> None:
    """Wait until a process that stands by has imported what it needs: a cost of the start, not of frames."""
    used = -1
    while True:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        now = int(fields[11]) + int(fields[12])
        if now == used and fields[0] == "S":
            return
        used = now
        time.sleep(0.5)


@dataclass(slots=True)
class Side:
    """Every run of one side: frames a second, and milliseconds of CPU a frame."""

    rates: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """The median."""
        return statistics.median(self.rates)

    @property
    def median_cpu_ms(self) -> float:
        """The median."""
        return statistics.median(self.cpu_ms)


def main() -> None:
    """Run the three in turns and print medians."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.guards", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--weights", help="state-dict file; none takes seeded random weights: as good for speed")
    parser.add_argument("--mode", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--frames", type=int, default=600, help="frames of a run with a backbone; default 600")
    parser.add_argument("--null-frames", type=int, default=16_000, help="frames of a run without; default 16000")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fsync", default="always", choices=["always", "everysec", "no"])
    parser.add_argument("--output", type=Path, default=Path(".build/bench/guards.json"))
    options = parser.parse_args()
    console = Console(width=118)
    source = WeightsSource.parse(options.weights) if options.weights else WeightsSource(random_seed=SEED)
    runtime = choose_runtime(load_backbone(options.backbone, source, numeric_mode=options.mode), device="cpu")
    setup = Setup(options.backbone, options.weights, options.mode, runtime)
    frames = parts(options.frames)
    artefact = fit(setup, frames[:200]).to_artefact().data
    grey = np.random.default_rng(SEED).integers(0, 256, (64, 224, 224), dtype=np.uint8)
    raw = [Frame(g.tobytes(), "raw", 1_700_000_000_000_000, shape=(224, 224), dtype="uint8") for g in grey]
    sides_seen: dict[str, Side] = {}
    console.print(f"{machine()}; appendfsync {options.fsync}; {options.backbone}, {options.mode}: {runtime}")
    arms = [WITH, IN_PROCESS, WITHOUT]
    for number in range(options.rounds):
        for arm in arms[number % 3 :] + arms[: number % 3]:
            body = partial(serve, arm=arm)
            said = [f"round {number + 1}: {arm:10}"]
            sides: list[tuple[str, Any, bytes | None, list[Frame], int]] = [
                (options.backbone, partial(make_judge, setup), artefact, frames, options.frames)
            ]
            if arm != IN_PROCESS:  # raw arrays meet no codec
                sides.append(("null backbone", make_null, None, raw, options.null_frames))
            for name, make, model, what, total in sides:
                rate, used, count = run_worker(options.fsync, make, model, what, total=total, main=body)
                side = sides_seen.setdefault(f"{name}, {arm}", Side())
                side.rates.append(rate)
                side.cpu_ms.append(1000 * used.cpu_s / (count + min(count, WARM)))
                said.append(f"{name} {rate:.1f} frames/s, {side.cpu_ms[-1]:.2f} ms of CPU a frame")
            console.print("; ".join(said), highlight=False)
        _save(options.output, options.backbone, sides_seen)
    for name, side in sides_seen.items():
        console.print(
            f"{name:32} {side.rate:8.1f} frames/s, {side.median_cpu_ms:6.2f} ms of CPU a frame, medians of "
            f"{len(side.rates)}",
            highlight=False,
        )
    for name, (rate, cpu) in _ratios(options.backbone, sides_seen).items():
        console.print(f"{name:48} with / without: {rate:.3f} by time, {cpu:.3f} by CPU", highlight=False)
    console.print(f"asked for with a backbone: at least {BOUND}", highlight=False)


def _ratios(backbone: str, sides: Mapping[str, Side]) -> dict[str, tuple[float, float]]:
    """Throughput with a guard as a share of that without: by the medians of frames a second, and of CPU time."""
    pairs = {
        f"{backbone}, guards": (f"{backbone}, {WITH}", f"{backbone}, {WITHOUT}"),
        f"{backbone}, decoding processes alone": (f"{backbone}, {WITH}", f"{backbone}, {IN_PROCESS}"),
        "null backbone, guards": (f"null backbone, {WITH}", f"null backbone, {WITHOUT}"),
    }
    return {
        name: (sides[one].rate / sides[other].rate, sides[other].median_cpu_ms / sides[one].median_cpu_ms)
        for name, (one, other) in pairs.items()
    }


def _save(path: Path, backbone: str, sides: Mapping[str, Side]) -> None:
    """After every round, so that a run that is cut short has told what it saw."""
    path.parent.mkdir(parents=True, exist_ok=True)
    told = {
        "machine": machine(),
        "runs": {name: asdict(side) for name, side in sides.items()},
        "ratios": _ratios(backbone, sides),
    }
    path.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
