"""Latency while all workers are restarted in turn: python -m bench.rolling [--workers 2] [--rate 100].

Each worker judges with a null backbone whose pass takes ten milliseconds and no CPU, as on a device of its own: what is
measured is what restarting costs the line, not what loading libraries costs two cores. A new worker is ready before an
old one is told to end, as in a roll-out of Kubernetes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.line import LINE, worker_main
from bench.null_judge import NullJudge
from gaussline.worker.broker.admission import Admission, Request, Status
from gaussline.worker.broker.client import Redis, connect
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.broker.ledger import read_ledger
from gaussline.worker.broker.verdicts import Verdicts
from gaussline.worker.contract.clock import from_text
from gaussline.worker.contract.frame import Frame, encode_batch
from gaussline.worker.engine.judgement import Judgement, Timing
from gaussline.worker.engine.prepare import Refusal

SIDE, PASS_S, BATCH, WAIT_S = 224, 0.010, 8, 0.010


class DeviceJudge(NullJudge):
    """A null backbone on a device: its pass takes time, and no CPU."""

    def judge(
        self, images: Sequence[NDArray[np.uint8]], cameras: Sequence[str], identities: Sequence[str]
    ) -> tuple[Sequence[Judgement | Refusal], Timing]:
        """One judgement a frame, after the pass."""
        time.sleep(PASS_S)
        return super().judge(images, cameras, identities)


def make(client: Redis) -> tuple[Any, int, int]:
    """The judge of a worker process."""
    return DeviceJudge(), BATCH, 1


def main() -> None:
    """Undisturbed, then restarted; both as one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.rolling", description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--seconds", type=float, default=25.0, help="of the undisturbed part")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    with EmbeddedRedis(appendfsync="everysec") as server:
        client = server.client(timeout_s=60.0)
        workers = [_Worker(server.url, number) for number in range(options.workers)]
        for worker in workers:
            worker.ready()
        told: list[str] = []
        ending = threading.Event()
        sender = threading.Thread(target=send, args=(server.url, options.rate, told, ending))
        sender.start()
        time.sleep(3.0)
        marks = [_now_us(client)]
        time.sleep(options.seconds)
        marks.append(_now_us(client))
        restarts = 0
        for number in range(options.rounds * options.workers):
            fresh = _Worker(server.url, options.workers + number)
            fresh.ready()
            workers.append(fresh)
            workers.pop(0).end()
            restarts += 1
            time.sleep(1.0)
        marks.append(_now_us(client))
        ending.set()
        sender.join()
        end = time.monotonic() + 20.0
        while read_ledger(client, LINE).in_flight and time.monotonic() < end:
            time.sleep(0.05)
        ledger = read_ledger(client, LINE)
        verdicts = [verdict for _, verdict in Verdicts(client, LINE).read("0-0", count=10**6)]
        for worker in workers:
            worker.end()
    ids = [verdict["id"] for verdict in verdicts]
    quiet, busy = (_latencies(verdicts, marks[part], marks[part + 1]) for part in (0, 1))
    p99 = [float(np.quantile(each, 0.99)) for each in (quiet, busy)]
    print(
        json.dumps(
            {
                "workers": options.workers,
                "rate": options.rate,
                "restarts": restarts,
                "frames": len(told),
                "lost": len(set(told) - set(ids)),
                "doubled": len(ids) - len(set(ids)),
                "not_judged": sum(verdict["decision"] == "not_judged" for verdict in verdicts),
                "balances": ledger.balances and ledger.in_flight == 0,
                "p50_ms": [float(np.median(each)) for each in (quiet, busy)],
                "p99_ms": p99,
                "max_ms": [max(each) for each in (quiet, busy)],
                "ratio": p99[1] / p99[0],
            }
        )
    )


class _Worker:
    def __init__(self, url: str, number: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._ready, self._told = context.Event(), context.Event()
        self._process = context.Process(
            target=worker_main, args=(url, make, f"w{number}", self._ready, self._told, WAIT_S), daemon=True
        )
        self._process.start()

    def ready(self) -> None:
        """Wait for it."""
        assert self._ready.wait(60.0), "a worker did not start"

    def end(self) -> None:
        """As SIGTERM does: it finishes what it has in hand."""
        self._told.set()
        self._process.join(30.0)


def send(url: str, rate: float, told: list[str], ending: threading.Event) -> None:
    """Open-loop arrivals of four cameras, with exponential gaps, until told to end."""
    client = connect(url)
    doors = []
    for number in range(4):
        door = Admission(client, LINE, f"cam{number}", camera_budget_bytes=2**33, line_budget_bytes=2**33)
        doors.append((door, door.open()))
    frame = Frame(bytes(SIDE * SIDE), "raw", 1_700_000_000_000_000, shape=(SIDE, SIDE), dtype="uint8")
    rng, due, number = np.random.default_rng(1), time.perf_counter(), 0
    while not ending.is_set():
        due += float(rng.exponential(1.0 / rate))
        time.sleep(max(0.0, due - time.perf_counter()))
        door, epoch = doors[number % 4]
        sequence = number // 4
        payload = encode_batch(door.camera, epoch, sequence, [frame])
        if door.admit(Request(epoch, sequence, 1, payload)).status is Status.ADMITTED:
            told.append(f"{door.camera}:{epoch}:{sequence}")
        number += 1
    client.close()


def _latencies(verdicts: Sequence[dict[str, Any]], begin_us: int, end_us: int) -> list[float]:
    """Milliseconds from admission to verdict of the frames admitted between two moments."""
    found = []
    for verdict in verdicts:
        admitted = from_text(verdict["admitted_at"])
        if begin_us <= admitted < end_us:
            found.append((from_text(verdict["judged_at"]) - admitted) / 1000.0)
    return found


def _now_us(client: Redis) -> int:
    seconds, micros = client.time()
    return int(seconds) * 1_000_000 + int(micros)


if __name__ == "__main__":
    main()
