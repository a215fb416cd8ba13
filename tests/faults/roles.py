"""What the harness's processes do: produce, judge, subscribe. Each writes what it saw into a journal."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from random import Random
from typing import Any, Final

from gaussline.producer.clock import SystemClock
from gaussline.producer.producer import Producer
from gaussline.producer.shot import Shot
from gaussline.worker.broker.client import connect, time_us
from gaussline.worker.broker.heartbeat import Heartbeat
from gaussline.worker.broker.intake import Intake
from gaussline.worker.broker.replication import Waiting
from gaussline.worker.broker.settle import Settler
from gaussline.worker.broker.verdicts import Verdicts, trim_verdicts
from gaussline.worker.contract.limits import ImageLimits, MessageLimits
from gaussline.worker.engine.clock import RedisClock
from gaussline.worker.engine.isolated_process import IsolatedProcess
from gaussline.worker.engine.observer import Observer
from gaussline.worker.engine.worker import Worker, WorkerConfig
from gaussline.worker.errors import BrokerError, BrokerUnavailable, GausslineError
from gaussline.worker.settings import Settings
from gaussline.worker.vision.decode_pool import DecodePool
from tests.faults import broken, isolated
from tests.faults.frames import Kind, broken_png, pixels
from tests.faults.judge import HarnessJudge
from tests.faults.pairs import judge_pairs

TIMEOUT_S: Final = 1.0
"""Time-out of one call to Redis; short, so that a stalled server is met by time-outs too."""
CLAIM_AFTER_S: Final = 0.4
SLOW_CLAIM_AFTER_S: Final = 0.8
HEARTBEAT_S: Final = 0.1
BAD_DECODER: Final = (sys.executable, "-m", "tests.vision.bad_decoder")
"""The product's decoding process, whose codec can be broken by what an image says."""
LATE_US: Final = 60_000_000


class Journal:
    """Lines that are in the file when `write` returns, SIGKILL or not."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)

    def write(self, **fields: Any) -> None:
        """Append one line."""
        os.write(self._file, json.dumps(fields).encode() + b"\n")


class JumpingClock(SystemClock):
    """A camera computer whose clock is set wrong, and set again at random; waits are as they are."""

    def __init__(self, draw: Random, most_s: float) -> None:
        self._draw = draw
        self._most_s = most_s
        self._off_us = 0

    def now_us(self) -> int:
        """UTC now, as far as this computer knows."""
        if self._most_s and self._draw.random() < 0.1:
            self._off_us = int(self._draw.uniform(-self._most_s, self._most_s) * 1e6)
        return super().now_us() + self._off_us


def produce(
    name: str,
    url: str,
    line: str,
    journal: str,
    camera: str,
    seed: int,
    first_token: int,
    frames: int,
    message_frames: int,
    frame_bytes: int,
    gap_s: float,
    kinds: dict[str, float],
    clock_jumps_s: float = 0.0,
    full: str = "block",
    camera_budget_bytes: int = 2**28,
    deadline_s: float = 0.0,
    wait_replicas: int = 0,
    wait_timeout_s: float = 0.5,
) -> None:
    """Send frames with the tokens from `first_token` on; the journal says what was offered, and what was told of it.

    A producer that follows a killed one goes on behind the last token that was offered: what its forerunner was not
    told stays unknown, as for a camera.
    """
    draw = Random(seed)
    notes = Journal(journal)
    pause = threading.Event()
    clock = JumpingClock(draw, clock_jumps_s)
    settings = Settings.load(
        {},
        redis_url=url,
        line=line,
        redis_timeout_s=TIMEOUT_S,
        full_policy=full,
        camera_budget_bytes=camera_budget_bytes,
        message_max_bytes=min(camera_budget_bytes, 2**20),
        wait_replicas=wait_replicas,
        wait_timeout_s=wait_timeout_s,
    )
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    token, end = first_token, first_token + frames
    weights = [kinds.get(kind.name, 0.0) for kind in Kind]
    deadline = timedelta(seconds=deadline_s) if deadline_s else None
    with Producer(
        camera, settings=settings, clock=clock, random=draw, connect_for_s=60.0, deadline=deadline
    ) as producer:
        while token < end and not stop.is_set():
            count = min(draw.randint(1, message_frames), end - token)
            drawn = draw.choices(list(Kind), weights, k=count)
            notes.write(offer=token, kinds=drawn)
            shots = [_shot(token + place, kind, draw.randint(8, frame_bytes)) for place, kind in enumerate(drawn)]
            receipt = producer.send_many(shots)[0]
            ids = receipt.ids if receipt.admitted else []
            notes.write(told=token, ids=ids, status=receipt.status.value, at_us=SystemClock().now_us())
            token += count
            pause.wait(draw.expovariate(1.0 / gap_s) if gap_s else 0.0)
        notes.write(done=True, unreplicated=producer.stats.unreplicated)


def _shot(token: int, kind: Kind, size: int) -> Shot:
    part = str(token)
    if kind is Kind.BROKEN:
        return Shot(broken_png(token), part, encoding="png")
    image = pixels(token, kind, size)
    if kind is Kind.LATE:
        long_ago = SystemClock().now_us() - LATE_US
        return Shot(image, part, captured_at=long_ago, deadline=timedelta(seconds=1))
    return Shot(image, part)


class Notes(Observer):
    """Writes a worker's faults to its standard error, where a person looks after a finding."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def surprise(self, stage: str, error: BaseException) -> None:
        """Nobody expected it: the checker is told."""
        self._journal.write(surprise=f"{stage}: {type(error).__name__}: {error}"[:500])


def judge(
    name: str,
    url: str,
    line: str,
    journal: str,
    slow_batches: list[int] | None = None,
    slow_s: float = 0.0,
    trim: bool = False,
    broken_as: str = "",
    batch_frames: int = 16,
    batch_s: float = 0.0,
    codecs: bool = False,
    batch_wait_s: float = 0.002,
    standby_after_s: float = 10.0,
    wait_replicas: int = 0,
    wait_timeout_s: float = 0.5,
    worker_name: str = "",
) -> None:
    """A worker process: the product's stages, heartbeat and clock around a judge without a network.

    `name` is that of this life; `worker_name` that of the worker, where it had a life before.
    """
    said = worker_name or name
    notes = Journal(journal)
    waiting = Waiting(wait_replicas, wait_timeout_s)
    open_ = partial(connect, url, timeout_s=TIMEOUT_S, line=line, waiting=waiting)
    watch = open_()
    clock = _until(lambda: RedisClock(lambda: time_us(watch)))
    make_intake, make_settler = broken.parts(broken_as) if broken_as else (Intake, Settler)
    pool = DecodePool(ImageLimits(), timeout_s=2, program=BAD_DECODER) if codecs else None
    null = HarnessJudge(slow_batches or [], slow_s, batch_s, pool)
    worker: Worker[Any] = Worker(
        make_intake(
            open_(),
            line,
            name,
            claim_after_s=CLAIM_AFTER_S,
            slow_claim_after_s=SLOW_CLAIM_AFTER_S,
        ),
        make_settler(open_(), line),
        null,
        WorkerConfig(
            line=line,
            name=said,
            batch_max_frames=batch_frames,
            batch_wait_s=batch_wait_s,
            intake_bytes=2**20,
            decode_threads=1,
            claim_every_s=CLAIM_AFTER_S / 4,
            drain_s=5.0,
            keep_pass_share=0.05,
            message_limits=MessageLimits(),
            standby_after_s=standby_after_s,
        ),
        now_us=clock,
        observer=Notes(notes),
        isolated=IsolatedProcess(
            lambda: {"batch_s": 0.0}, limits=MessageLimits(), now_us=clock, program=isolated.PROGRAM
        )
        if not broken_as
        else None,
    )
    heartbeat = Heartbeat(
        open_(),
        line,
        said,
        life=name,
        period_s=HEARTBEAT_S,
        on_loss=lambda error: notes.write(surprise=str(error)),
    )
    _until(heartbeat.start)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    stopping = threading.Event()
    threading.Thread(target=_keep, args=(watch, line, clock, trim, stopping), daemon=True).start()
    notes.write(ready=True)
    try:
        released = worker.run()
    finally:
        stopping.set()
        heartbeat.stop()
    notes.write(stopped=released, judged=null.frames)


def _keep(client: Any, line: str, clock: RedisClock, trim: bool, stopping: threading.Event) -> None:
    """What the product's watch does beside the stages."""
    while not stopping.wait(0.1):
        try:
            clock.measure()
            if trim:
                trim_verdicts(client, line, min_age_s=0.0, max_bytes=2**30, policy="trim")
        except BrokerError:
            continue


def _until(act: Callable[[], Any]) -> Any:
    """Try until Redis is there."""
    pause = threading.Event()
    while True:
        try:
            return act()
        except BrokerUnavailable:
            pause.wait(0.05)


def subscribe(
    name: str,
    url: str,
    line: str,
    journal: str,
    seed: int,
    act_s: float = 0.0,
    wait_replicas: int = 0,
    wait_timeout_s: float = 0.5,
) -> None:
    """A subscriber with a durable cursor: read, act (a line in the journal), acknowledge, for ever."""
    draw = Random(seed)
    notes = Journal(journal)
    pause = threading.Event()
    while True:
        waiting = Waiting(wait_replicas, wait_timeout_s)
        verdicts = Verdicts(connect(url, timeout_s=TIMEOUT_S, line=line, waiting=waiting), line)
        try:
            for entry_id, verdict in verdicts.follow(group=name):
                notes.write(read=entry_id, id=verdict["id"])
                if act_s and draw.random() < 0.1:
                    pause.wait(act_s)
                verdicts.ack(name, entry_id)
        except GausslineError as error:  # of a power cut too, which took the registration: `follow` makes it again
            notes.write(trouble=str(error)[:200])
            pause.wait(0.05)


def parts(name: str, url: str, line: str, journal: str) -> None:
    """The part judge, for ever."""
    client = connect(url, timeout_s=TIMEOUT_S, line=line)
    try:
        judge_pairs(client, line, threading.Event())
    except GausslineError as error:  # nobody expected it: the checker is told, for it ends
        Journal(journal).write(surprise=f"{type(error).__name__}: {error}"[:500])
        raise


ROLES: Final[dict[str, Callable[..., None]]] = {
    "produce": produce,
    "judge": judge,
    "subscribe": subscribe,
    "parts": parts,
}
