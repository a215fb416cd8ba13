"""How soon a line with a real backbone goes on: make bench-recovery; python -m bench.recovery --help.

killed      two workers of `gaussline worker` under load; one is killed (SIGKILL) with messages in its hands. Told is
            the time until the last frame that it held has its verdict; asked for: the claim time and two seconds. The
            other one has run for long enough for its isolated process to stand by, and judges them in it, one by one.
restarted   Redis is killed and started from its append-only file, frames waiting. Told is the time from its first
            answer to the first verdict; asked for: three seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from bench.line import BUDGET, LINE
from bench.record import machine
from bench.sides import Setup, fit, parts, publish
from gaussline.worker.broker.admission import Admission, Request, Status
from gaussline.worker.broker.client import Redis, connect, time_us
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.broker.ledger import read_ledger
from gaussline.worker.broker.verdicts import Verdicts
from gaussline.worker.contract.clock import from_text
from gaussline.worker.contract.frame import Frame, encode_batch, frame_id
from gaussline.worker.contract.keys import Keys
from gaussline.worker.vision.backbones import load_backbone
from gaussline.worker.vision.runtime import choose_runtime
from gaussline.worker.vision.weights import WeightsSource

CAMERA: Final = "cam1"
BATCH: Final = 4
RECOVERED_S: Final = 2.0
RESTARTED_S: Final = 3.0
STANDBY_S: Final = 10.0
"""So long after its start a worker's isolated process is started."""


class Sender:
    """Frames at a steady rate, or as many as wait already, through whatever happens to Redis."""

    def __init__(self, url: str, frames: list[Frame], rate: float) -> None:
        self._frames = frames
        self._gap_s = 1.0 / rate
        self._client = connect(url)
        self._door = Admission(self._client, LINE, CAMERA, camera_budget_bytes=BUDGET, line_budget_bytes=BUDGET)
        self._epoch = self._door.open()
        self._sequence = 0
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def push(self, count: int) -> None:
        """Admit so many at once."""
        for _ in range(count):
            with self._lock:
                frame = self._frames[self._sequence % len(self._frames)]
                payload = encode_batch(CAMERA, self._epoch, self._sequence, [frame])
                answer = self._door.admit(Request(self._epoch, self._sequence, 1, payload))
                assert answer.status is Status.ADMITTED, answer
                self._sequence += 1

    def _run(self) -> None:
        due_s = time.monotonic()
        while not self._ending.is_set():
            due_s += self._gap_s
            if not self._ending.wait(max(0.0, due_s - time.monotonic())):
                self.push(1)

    def __enter__(self) -> Sender:
        self._thread.start()
        return self

    def __exit__(self, *about: object) -> None:
        self._ending.set()
        self._thread.join()


class WorkerProcess:
    """One `gaussline worker`, ready."""

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gaussline.worker.commands.main", "worker"],
            env={**os.environ, **environment, "GAUSSLINE_WORKER_NAME": name, "GAUSSLINE_HTTP_PORT": "0"},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        port = 0
        while not port:
            line = self._process.stderr.readline()
            if not line:
                raise RuntimeError(f"worker {name} ended with code {self._process.wait()}")
            said = json.loads(line) if line.startswith("{") else {}
            port = int(said.get("http_port") or 0)
        threading.Thread(target=self._process.stderr.read, daemon=True).start()
        _until(lambda: _ready(port), f"worker {name}", 120.0)
        self.began_s = time.monotonic()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _until(true: Any, what: str, within_s: float = 60.0) -> None:
    end_s = time.monotonic() + within_s
    while not true():
        if time.monotonic() > end_s:
            raise RuntimeError(f"{what}: not within {within_s:g} s")
        time.sleep(0.01)


def _held(client: Redis, worker: str) -> set[str]:
    """Ids of the frames in a worker's hands. It takes them by the name of its life, see `heartbeat.life_of`."""
    keys, held = Keys(LINE), set()
    for entry in client.xpending_range(keys.frames(CAMERA), "workers", "-", "+", 10_000):
        meta = client.hget(keys.index(CAMERA), entry["message_id"])
        if meta is not None and entry["consumer"].decode().startswith(f"{worker}."):
            frames, first, epoch, *_ = (int(part) for part in meta.split(b":"))
            held |= {frame_id(CAMERA, epoch, first + offset) for offset in range(frames)}
    return held


def _judged_us(client: Redis, after: str) -> dict[str, int]:
    """Frame id -> when it was judged, of all verdicts after an entry."""
    found = Verdicts(client, LINE).read(after, count=10**6)
    return {verdict["id"]: from_text(verdict["judged_at"]) for _, verdict in found}


def killed(client: Redis, sender: Sender, environment: Mapping[str, str], rounds: int) -> Iterator[dict[str, Any]]:
    """One line a round: seconds, frames that were held."""
    workers = [WorkerProcess(f"w{number}", environment) for number in range(2)]
    try:
        for number in range(rounds):
            time.sleep(max(0.0, workers[-1].began_s + STANDBY_S + 5.0 - time.monotonic()))
            victim = workers[0]
            after = Verdicts(client, LINE).last_id()
            sender.push(64)  # a burst, so that its hands are full
            _until(lambda: len(_held(client, victim.name)) >= 8, "frames in its hands")  # noqa: B023
            victim.kill()
            workers.remove(victim)
            at_us, held = time_us(client), _held(client, victim.name)
            _until(lambda: held <= _judged_us(client, after).keys(), "the dead worker's frames", 120.0)  # noqa: B023
            judged = _judged_us(client, after)
            yield {"seconds": (max(judged[name] for name in held) - at_us) / 1e6, "held": len(held)}
            workers.append(WorkerProcess(f"w{number + 2}", environment))
    finally:
        for worker in workers:
            worker.kill()


def restarted(
    server: EmbeddedRedis, client: Redis, sender: Sender, environment: Mapping[str, str], rounds: int
) -> Iterator[dict[str, Any]]:
    """One line a round: seconds, frames that waited."""
    workers = [WorkerProcess(f"r{number}", environment) for number in range(2)]
    try:
        for _ in range(rounds):
            after = Verdicts(client, LINE).last_id()
            sender.push(200)
            server.kill()
            server.start()
            ready_us = time_us(client)
            waiting = read_ledger(client, LINE).in_flight
            _until(lambda: any(at > ready_us for at in _judged_us(client, after).values()), "a verdict")  # noqa: B023
            first_us = min(at for at in _judged_us(client, after).values() if at > ready_us)
            yield {"seconds": (first_us - ready_us) / 1e6, "held": waiting}
            _until(lambda: read_ledger(client, LINE).in_flight == 0, "every verdict", 120.0)
    finally:
        for worker in workers:
            worker.kill()


def main() -> None:
    """Both, and what was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.recovery", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--weights", required=True, help="state-dict file")
    parser.add_argument("--mode", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=float, default=10.0, help="frames a second beside it; default 10")
    parser.add_argument("--claim-after-s", type=float, default=5.0)
    parser.add_argument("--part", choices=["killed", "restarted"], help="only this")
    parser.add_argument("--output", type=Path, default=Path(".build/bench/recovery.json"))
    options = parser.parse_args()
    console = Console(width=118)
    console.print(f"{machine()}; appendfsync always; {options.backbone}, {options.mode}", highlight=False)
    told: dict[str, Any] = {"machine": machine(), "backbone": options.backbone, "mode": options.mode}
    with tempfile.TemporaryDirectory(prefix="gaussline-recovery-") as folder:
        server = EmbeddedRedis(Path(folder) / "redis", appendfsync="always").start()
        try:
            client = connect(server.url)
            _publish(client, options)
            environment = {
                "GAUSSLINE_REDIS_URL": server.url,
                "GAUSSLINE_LINE": LINE,
                "GAUSSLINE_WEIGHTS": options.weights,
                "GAUSSLINE_CLAIM_AFTER_S": f"{options.claim_after_s}",
                # What a worker has in its hands goes by the size of its batches, which it measures: the same each time.
                "GAUSSLINE_BATCH_MAX_FRAMES": f"{BATCH}",
                "GAUSSLINE_LOG_FORMAT": "json",
            }
            frames = parts(100)
            for part, bound_s in (("killed", options.claim_after_s + RECOVERED_S), ("restarted", RESTARTED_S)):
                if options.part not in (None, part):
                    continue
                sender = Sender(server.url, frames, options.rate)
                with sender if part == "killed" else contextlib.nullcontext():
                    rounds = (
                        killed(client, sender, environment, options.rounds)
                        if part == "killed"
                        else restarted(server, client, sender, environment, options.rounds)
                    )
                    told[part] = []
                    for line in rounds:
                        told[part].append(line)
                        console.print(f"{part:10} {line['seconds']:6.2f} s, {line['held']} frames", highlight=False)
                most = max(line["seconds"] for line in told[part])
                console.print(f"{part:10} most {most:.2f} s; asked for: {bound_s:g} s", highlight=False)
        finally:
            server.stop()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(told, indent=2) + "\n", "utf-8")


def _publish(client: Redis, options: argparse.Namespace) -> None:
    """A model of rendered parts, promoted."""
    source = WeightsSource.parse(options.weights)
    runtime = choose_runtime(load_backbone(options.backbone, source, numeric_mode=options.mode), device="cpu")
    setup = Setup(options.backbone, options.weights, options.mode, runtime)
    publish(client, fit(setup, parts(200)).to_artefact().data)


if __name__ == "__main__":
    main()
