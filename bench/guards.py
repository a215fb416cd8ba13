"""What the guards cost, this worker with and without them in turns: make bench-guards; python -m bench.guards --help.

Three workers, otherwise alike:

    with        as the product runs
    in-process  the same, but images are decoded in the worker itself (GAUSSLINE_DECODE_ISOLATION=false)
    without     images are decoded in the worker itself, no isolated process stands by, nothing is claimed, audited or
                reconciled, no heart beats, and settling acknowledges, deletes, publishes and counts what it is told,
                in one script, but looks at nothing first

The last one loses and doubles frames, and dies of a codec; it is here to be measured. The guards of admission are on
for all three: the backlog is pushed before the time is taken.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgpack
import numpy as np
from rich.console import Console

from bench.line import LINE, Usage
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
from gaussline.worker.engine.garbage import freeze_start_up
from gaussline.worker.engine.isolated_process import IsolatedProcess
from gaussline.worker.engine.worker import Worker, WorkerConfig
from gaussline.worker.vision.backbones import load_backbone
from gaussline.worker.vision.decode_pool import DecodePool
from gaussline.worker.vision.runtime import choose_runtime
from gaussline.worker.vision.weights import WeightsSource

BOUND: Final = 0.95
DECODERS: Final = 2
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
        judge.pool = DecodePool(ImageLimits(), processes=DECODERS)
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
        WorkerConfig(
            line=LINE,
            name=name,
            batch_max_frames=batch,
            batch_wait_s=wait_s,
            intake_bytes=64 * 2**20,
            decode_threads=DECODERS,
            claim_every_s=1.0,
            drain_s=10.0,
            keep_pass_share=0.0,
            message_limits=MessageLimits(),
            lanes=lanes,
        ),
        now_us=clock,
        isolated=isolated,
    )
    heartbeat = Heartbeat(connect(url), LINE, name) if guarded else None
    if heartbeat is not None:
        heartbeat.start()
    freeze_start_up()
    before = Usage.now()
    worker.start()
    ready.set()
    told.wait()
    worker.stop()
    worker.join()
    if heartbeat is not None:
        heartbeat.stop()
    after = Usage.now()
    client.set("bench:usage", f"{after.cpu_s - before.cpu_s} {after.peak_bytes}")


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
    rates: dict[str, list[float]] = {}
    console.print(f"{machine()}; appendfsync {options.fsync}; {options.backbone}, {options.mode}: {runtime}")
    arms = [WITH, IN_PROCESS, WITHOUT]
    for number in range(options.rounds):
        for arm in arms[number % 3 :] + arms[: number % 3]:
            body = partial(serve, arm=arm)
            rate, _, _ = run_worker(options.fsync, partial(make_judge, setup), artefact, frames, main=body)
            rates.setdefault(f"{options.backbone}, {arm}", []).append(rate)
            told = f"round {number + 1}: {arm:10} {rate:8.1f} frames/s"
            if arm != IN_PROCESS:  # raw arrays meet no codec
                null, _, _ = run_worker(options.fsync, make_null, None, raw, total=options.null_frames, main=body)
                rates.setdefault(f"null backbone, {arm}", []).append(null)
                told += f", null backbone {null:.0f}"
            console.print(told, highlight=False)
        _save(options.output, options.backbone, rates)
    medians, ratios = _summary(options.backbone, rates)
    for name, value in medians.items():
        console.print(f"{name:48} {value:8.1f} frames/s, median of {options.rounds}", highlight=False)
    for name, value in ratios.items():
        console.print(f"{name:48} with / without {value:.3f}", highlight=False)
    console.print(f"asked for with a backbone: at least {BOUND}", highlight=False)


def _summary(backbone: str, rates: dict[str, list[float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Medians in frames a second, and ratios of them."""
    medians = {name: statistics.median(values) for name, values in rates.items()}
    guarded = medians[f"{backbone}, {WITH}"]
    ratios = {
        f"{backbone}, guards": guarded / medians[f"{backbone}, {WITHOUT}"],
        f"{backbone}, decoding processes alone": guarded / medians[f"{backbone}, {IN_PROCESS}"],
        "null backbone, guards": medians[f"null backbone, {WITH}"] / medians[f"null backbone, {WITHOUT}"],
    }
    return medians, ratios


def _save(path: Path, backbone: str, rates: dict[str, list[float]]) -> None:
    """After every round, so that a run that is cut short has told what it saw."""
    medians, ratios = _summary(backbone, rates)
    path.parent.mkdir(parents=True, exist_ok=True)
    told = {"machine": machine(), "rates": rates, "medians": medians, "ratios": ratios}
    path.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
