"""How soon a killed worker's frames are judged: python -m bench.recovery --help.

Two workers as the product runs them, with a backbone, share a backlog; one is killed with SIGKILL in the middle of it.
What it held is claimed by the other one when the claim time is over, judged alone in the isolated process that stands
by, and timed from the kill to the last verdict of it by Redis's clock.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from bench.line import LINE, drained, push
from bench.record import machine
from bench.sides import Setup, fit, parts, publish
from gaussline.worker.broker.client import Redis, time_us
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.broker.verdicts import Verdicts
from gaussline.worker.contract.clock import from_text
from gaussline.worker.contract.frame import frame_id
from gaussline.worker.contract.keys import Keys
from gaussline.worker.vision.backbones import load_backbone
from gaussline.worker.vision.runtime import RuntimeChoice
from gaussline.worker.vision.weights import WeightsSource

STANDBY_S: Final = 20.0
"""By then a worker's isolated process stands by; a worker killed before waits for that one's imports too."""
CAMERAS: Final = tuple(f"cam{number}" for number in range(4))
BOUND_S: Final = 2.0


def start(url: str, name: str, weights: str, claim_s: float) -> subprocess.Popen[bytes]:
    """One worker."""
    settings = {
        "REDIS_URL": url,
        "LINE": LINE,
        "WORKER_NAME": name,
        "WEIGHTS": weights,
        "HTTP_PORT": "0",
        "CLAIM_AFTER_S": str(claim_s),
        "TORCH_THREADS": "1",
        "COMPUTE_LANES": "1",
        "LOG_LEVEL": "error",
    }
    environment = os.environ | {f"GAUSSLINE_{key}": value for key, value in settings.items()}
    return subprocess.Popen([sys.executable, "-m", "gaussline.worker.commands.main", "worker"], env=environment)


def held(client: Redis, worker: str) -> set[str]:
    """Frames in a worker's hands."""
    keys, found = Keys(LINE), set()
    for camera in CAMERAS:
        for entry in client.xpending_range(keys.frames(camera), "workers", "-", "+", 1000, worker):
            meta = client.hget(keys.index(camera), entry["message_id"])
            if meta is not None:
                frames, first, epoch, *_ = (int(part) for part in meta.split(b":"))
                found |= {frame_id(camera, epoch, first + offset) for offset in range(frames)}
    return found


def one(options: argparse.Namespace, artefact: bytes, frames: Any) -> dict[str, float]:
    """One kill: frames that were held, and seconds to the last verdict of them."""
    with EmbeddedRedis(appendfsync=options.fsync) as server:
        client = server.client(timeout_s=60.0)
        publish(client, artefact)
        workers = {name: start(server.url, name, options.weights, options.claim_s) for name in ("first", "second")}
        try:
            time.sleep(STANDBY_S)
            for camera in CAMERAS:
                push(server.url, camera, frames, per_message=2, total=options.frames // len(CAMERAS))
            while not (mine := held(client, "first")) or client.xlen(Keys(LINE).verdicts) < options.frames // 8:
                time.sleep(0.01)
            mine, killed_us = held(client, "first"), time_us(client)
            workers["first"].send_signal(signal.SIGKILL)
            drained(client, CAMERAS)
            verdicts = [verdict for _, verdict in Verdicts(client, LINE).read("0-0", count=10**6)]
        finally:
            for process in workers.values():
                process.kill()
                process.wait()
        late = [verdict for verdict in verdicts if from_text(verdict["judged_at"]) > killed_us]
        last = max((from_text(one["judged_at"]) for one in late if one["id"] in mine), default=killed_us)
        if len(verdicts) != options.frames or any(one["decision"] == "not_judged" for one in verdicts):
            raise RuntimeError(f"{len(verdicts)} verdicts of {options.frames} frames")
        return {"held": len(mine), "seconds": (last - killed_us) / 1e6}


def main() -> None:
    """Kill some, print what it took."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.recovery", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--weights", required=True, help="state-dict file")
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--claim-s", type=float, default=5.0, help="claim_after_s of the workers; default 5, as theirs")
    parser.add_argument("--fsync", default="always", choices=["always", "everysec", "no"])
    parser.add_argument("--output", type=Path, default=Path(".build/bench/recovery.json"))
    options = parser.parse_args()
    load_backbone(options.backbone, WeightsSource.parse(options.weights))  # an error is better told before the servers
    frames = parts(200)
    artefact = fit(Setup(options.backbone, options.weights, "float32", RuntimeChoice()), frames).to_artefact().data
    console = Console(width=118, highlight=False)
    console.print(f"{machine()}; appendfsync {options.fsync}; {options.backbone}; claim time {options.claim_s:g} s")
    found = []
    for number in range(options.kills):
        found.append(one(options, artefact, frames))
        beyond = found[-1]["seconds"] - options.claim_s
        console.print(
            f"kill {number + 1}: {found[-1]['held']:.0f} frames in its hands, the last of them judged "
            f"{found[-1]['seconds']:.2f} s after the kill: the claim time and {beyond:.2f} s (at most {BOUND_S})"
        )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"machine": machine(), "kills": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
