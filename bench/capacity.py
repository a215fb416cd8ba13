"""What `gaussline plan` is made of, measured on this machine: python -m bench.capacity FILE [--backbone NAME …].

Rates are taken with the machine otherwise idle. Redis's cost is its own CPU time (INFO), admission, taking and settling
together, fitted over three sizes of message.
"""

from __future__ import annotations

import argparse
import datetime
import io
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from bench.line import LINE
from bench.record import machine
from bench.sides import make_null, run_worker
from gaussline.worker.broker.admission import Admission, Request
from gaussline.worker.broker.client import Redis
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.broker.intake import Intake
from gaussline.worker.broker.settle import Settlement, Settler
from gaussline.worker.commands.capacity import CPU, Measured
from gaussline.worker.contract.frame import Frame, encode_batch, frame_id
from gaussline.worker.contract.limits import ImageLimits
from gaussline.worker.contract.verdict import Decision, ModelRef, Verdict
from gaussline.worker.gaussian.moments import Moments
from gaussline.worker.vision.backbones import load_backbone
from gaussline.worker.vision.decode import decode
from gaussline.worker.vision.runtime import choose_runtime, resolve_device
from gaussline.worker.vision.weights import WeightsSource

SIZES = (10_000, 100_000, 400_000)
MESSAGES = 400
BACKBONES = ("mobilenet_v2", "resnet18", "efficientnet_b0", "efficientnet_b4")
BLOCK = 256


def main() -> None:
    """Measure, and write the file."""
    parser = argparse.ArgumentParser(prog="python -m bench.capacity", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--backbone", action="append", help="may be repeated")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--redis-only", action="store_true", help="measure Redis's costs anew, keep the rest of the file"
    )
    parser.add_argument("--device-name", help="what `gaussline plan --gpu` shall call it, such as l4")
    options = parser.parse_args()
    if options.redis_only:
        before = json.loads(options.file.read_text("utf-8"))
        names = ("message_us", "byte_ns", "payload_factor", "message_bytes", "verdict_bytes")
        before |= dict(zip(names, redis_costs(), strict=True))
        options.file.write_text(json.dumps(_rounded(before), indent=1) + "\n", "utf-8")
        print({name: before[name] for name in names})
        return
    device = resolve_device(options.device)
    name = CPU if device == "cpu" else options.device_name or "cuda"
    rates: dict[str, dict[str, float]] = {}
    features: dict[str, float] = {}
    learner: dict[str, float] = {}
    for backbone in options.backbone or BACKBONES:
        rate, channels = images_per_second(backbone, device)
        rates[backbone], features[backbone] = {name: rate}, 4.0 * sum(channels) + 400.0
        learner[backbone] = learner_frames_per_second(channels)
        print(f"{backbone}: {rate:.1f} images/s, learner {learner[backbone]:.0f} frames/s", flush=True)
    costs = redis_costs()
    frames = [Frame(bytes(224 * 224), "raw", 1_700_000_000_000_000, shape=(224, 224), dtype="uint8")]
    pipeline, _, _ = run_worker("everysec", make_null, None, frames, total=8_000)
    made = Measured(
        machine(),
        datetime.datetime.now(datetime.UTC).date().isoformat(),
        os.cpu_count() or 1,
        rates,
        decode_ms(),
        pipeline,
        *costs,
        features,
        learner,
    )
    options.file.write_text(json.dumps(_rounded(asdict(made)), indent=1) + "\n", "utf-8")
    print(json.dumps(_rounded(asdict(made)), indent=1))


def images_per_second(name: str, device: str) -> tuple[float, tuple[int, ...]]:
    """One process at its best, and the channels of the levels."""
    backbone = load_backbone(name, WeightsSource(random_seed=1))
    chosen = choose_runtime(backbone, device=device, lanes=None, budget_s=6.0)
    assert chosen.images_per_second is not None
    return chosen.images_per_second, tuple(backbone.spec.channels)


def decode_ms() -> dict[str, float]:
    """CPU milliseconds a megapixel of one thread, of a textured picture of 1.3 megapixels."""
    rng = np.random.default_rng(1)
    base = rng.normal(128.0, 30.0, (64, 80, 3)).clip(0, 255).astype(np.uint8)
    picture = Image.fromarray(base).resize((1280, 1024), Image.Resampling.BICUBIC)
    costs = {"raw": 0.0}
    for form, name in (("JPEG", "jpeg"), ("PNG", "png")):
        buffer = io.BytesIO()
        picture.save(buffer, form)
        data = buffer.getvalue()
        decode(data, name, ImageLimits())
        begin, rounds = time.process_time(), 12
        for _ in range(rounds):
            decode(data, name, ImageLimits())
        costs[name] = 1000.0 * (time.process_time() - begin) / rounds / (1280 * 1024 / 1e6)
    return costs


def learner_frames_per_second(channels: Sequence[int]) -> float:
    """Blocks folded into the moments of every level."""
    rng = np.random.default_rng(1)
    rows = [rng.normal(size=(BLOCK, width)).astype(np.float32) for width in channels]
    moments = [Moments(width) for width in channels]
    for level, block in zip(moments, rows, strict=True):
        level.update(block)
    begin, rounds = time.perf_counter(), 5
    for _ in range(rounds):
        for level, block in zip(moments, rows, strict=True):
            level.update(block)
    return rounds * BLOCK / (time.perf_counter() - begin)


def redis_costs() -> tuple[float, float, float, float, float]:
    """CPU µs a message, CPU ns a byte, bytes held of one of a payload and of a message beside it, bytes a verdict."""
    costs, held, verdicts = [], [], []
    for size in SIZES:
        with EmbeddedRedis(appendfsync="everysec") as server:
            client = server.client(timeout_s=60.0)
            _way(client, size, 20)
            before, used = _cpu_s(client), _used(client)
            doors = _admit(client, size, MESSAGES)
            held.append((_used(client) - used) / MESSAGES)
            _settle(client, doors)
            costs.append((_cpu_s(client) - before) / MESSAGES)
            verdicts.append((_used(client) - used) / MESSAGES)
    slope, start = np.polyfit(SIZES, costs, 1)
    factor = max(each / size for each, size in zip(held[1:], SIZES[1:], strict=True))
    beside = max(0.0, held[0] - factor * SIZES[0])
    return 1e6 * float(start), 1e9 * float(slope), factor, beside, float(np.median(verdicts))


def _way(client: Redis, size: int, count: int) -> None:
    _settle(client, _admit(client, size, count))


def _admit(client: Redis, size: int, count: int) -> int:
    door = Admission(client, LINE, "cam1", camera_budget_bytes=2**33, line_budget_bytes=2**33)
    epoch = door.open()
    data = np.random.default_rng(size).bytes(size)
    for sequence in range(count):
        payload = encode_batch("cam1", epoch, sequence, [Frame(data, "jpeg", 1_700_000_000_000_000)])
        door.admit(Request(epoch, sequence, 1, payload))
    return count


def _settle(client: Redis, count: int) -> None:
    intake, settler = Intake(client, LINE, "w"), Settler(client, LINE)
    model = ModelRef("default", 1, "0" * 64)
    while count:
        # One at a time, as where frames come slower than they are judged: batches only make it cheaper.
        messages = intake.take(max_frames=1, max_bytes=8 * max(SIZES))
        settlements = []
        for message in messages:
            identity = frame_id(message.camera, message.epoch, message.first_sequence)
            verdict = Verdict(
                identity,
                LINE,
                message.camera,
                message.epoch,
                message.first_sequence,
                Decision.PASS,
                "w",
                admitted_us=message.admitted_us,
                captured_us=1_700_000_000_000_000,
                score=12.5,
                threshold=20.0,
                p_value=0.5,
                level_scores={str(n): 1.5 for n in range(8)},
                model=model,
            )
            text = verdict.to_open_json()
            settlements.append(Settlement(message.camera, message.entry_id, [(identity, "pass", text)]))
        settler.settle(settlements)
        count -= len(messages)


def _cpu_s(client: Redis) -> float:
    info = client.info("cpu")
    return float(info["used_cpu_user_main_thread"]) + float(info["used_cpu_sys_main_thread"])


def _used(client: Redis) -> int:
    return int(client.info("memory")["used_memory"])


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    return {name: _rounded(each) for name, each in value.items()} if isinstance(value, dict) else value


if __name__ == "__main__":
    main()
