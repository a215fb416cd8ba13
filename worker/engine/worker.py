"""The worker: three overlapping stages around one backbone.

    intake   take, claim and prepare messages        (its thread; images are decoded in a small pool)
    compute  batch frames and judge them             (its thread)
    settle   publish what is decided, whole messages (its thread)

The stop order, and why. Intake stops first, so that nothing new is begun. Then the hand-over is closed, and compute
finishes what it holds: those frames are paid for. Then settle publishes. What is not decided when the drain time ends
is released to the other workers, and does not count as a crash. The heartbeat stops last: while a message may still be
settled here, nobody should claim it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from gaussline.worker.broker.intake import Intake, Message
from gaussline.worker.broker.kept_folder import KeptFolder
from gaussline.worker.broker.settle import Settler
from gaussline.worker.contract.limits import MessageLimits
from gaussline.worker.contract.verdict import Reason
from gaussline.worker.engine.batcher import Batcher
from gaussline.worker.engine.conclude import Concluder
from gaussline.worker.engine.credit import Credit
from gaussline.worker.engine.handover import Handover
from gaussline.worker.engine.judgement import Judge
from gaussline.worker.engine.observer import Observer
from gaussline.worker.engine.prepare import MessageWork, PreparedFrame, Preparer, Refusal
from gaussline.worker.engine.publish import publish
from gaussline.worker.errors import BrokerError, BrokerUnavailable

Image = TypeVar("Image")
IDLE_S = 0.25
"""Longest sleep of a stage: how soon it notices a stop, a claim that is due, or a bell that was lost."""
SETTLE_MESSAGES = 32
"""Most messages of one settle call; a bound on how long one call holds Redis."""
BACKOFF_S = (0.05, 2.0)


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """How one worker runs.

    Attributes:
        batch_max_frames: frames of one backbone pass.
        batch_wait_s: longest wait of a frame for company.
        intake_bytes: encoded bytes taken and not yet settled.
        claim_every_s: period of looking for dead workers' messages, and of reconciling with the streams.
        drain_s: time to finish in after a stop.
        keep_pass_share, reservoir_share, features_share: see `Concluder`.
    """

    line: str
    name: str
    batch_max_frames: int
    batch_wait_s: float
    intake_bytes: int
    decode_threads: int
    claim_every_s: float
    drain_s: float
    keep_pass_share: float
    message_limits: MessageLimits
    reservoir_share: float = 0.0
    features_share: float = 1.0


class Worker(Generic[Image]):
    """Takes frames, judges them, publishes verdicts. Holds no state that matters."""

    def __init__(
        self,
        intake: Intake,
        settler: Settler,
        judge: Judge[Image],
        config: WorkerConfig,
        *,
        now_us: Callable[[], int],
        observer: Observer | None = None,
        kept_folder: KeptFolder | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._intake = intake
        self._settler = settler
        self._judge = judge
        self._config = config
        self._now_us = now_us
        self._kept_folder = kept_folder
        self._monotonic = monotonic
        self._observer = observer or Observer()
        self._preparer = Preparer(judge.to_image, limits=config.message_limits, now_us=now_us)
        self._concluder = Concluder(
            config.line,
            config.name,
            config.keep_pass_share,
            reservoir_share=config.reservoir_share,
            features_share=config.features_share,
        )
        # Two batches ahead keep the backbone fed; more would only age frames out of the fair order of the queue.
        self._credit = Credit(2 * config.batch_max_frames, config.intake_bytes)
        self._handover: Handover[PreparedFrame[Image]] = Handover(
            Batcher(config.batch_max_frames, config.batch_wait_s), monotonic
        )
        # Unbounded by itself, bounded by the credit: what is in it was paid for in bytes when it was taken.
        self._decided: queue.SimpleQueue[_Decided[Image] | None] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(config.decode_threads, "decode") if config.decode_threads > 1 else None
        self._open: dict[tuple[str, str], MessageWork[Image]] = {}
        self._open_lock = threading.Lock()
        self._stopping = threading.Event()
        self._abandon = threading.Event()
        self._next_claim_s = 0.0
        self._threads: list[threading.Thread] = []
        self._failure: BaseException | None = None

    # --- life --------------------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Start the three stages."""
        for name, stage in (("intake", self._run_intake), ("compute", self._run_compute), ("settle", self._run_settle)):
            thread = threading.Thread(target=self._guard, args=(name, stage), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Ask the worker to drain. Returns at once; safe in a signal handler."""
        self._stopping.set()

    def join(self) -> int:
        """Wait for a stop, then drain; the number of messages released undecided. Re-raises a stage's failure."""
        self._stopping.wait()
        end = self._monotonic() + self._config.drain_s
        for thread in self._threads:
            thread.join(max(0.0, end - self._monotonic()))
        self._abandon.set()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        released = self._release()
        if self._failure is not None:
            raise self._failure
        return released

    def run(self) -> int:
        """Start, serve until `stop`, drain."""
        self.start()
        return self.join()

    @property
    def held_bytes(self) -> int:
        """Encoded bytes taken and not yet settled."""
        return self._credit.held_bytes

    def _release(self) -> int:
        with self._open_lock:
            left = [work.message for work in self._open.values()]
            self._open.clear()
        if left:
            try:
                self._intake.release(left)
            except BrokerError as error:
                self._observer.trouble("release", error)  # they will be claimed once the heartbeat is gone
        return len(left)

    def _guard(self, name: str, stage: Callable[[], None]) -> None:
        try:
            stage()
        except BaseException as error:
            self._failure = self._failure or error
            self._observer.surprise(name, error)
            self._stopping.set()
        finally:
            if name == "intake":
                self._handover.close()
            elif name == "compute":
                self._decided.put(None)

    # --- intake ------------------------------------------------------------------------------------------------------
    def _run_intake(self) -> None:
        backoff_s = BACKOFF_S[0]
        while not self._stopping.is_set():
            try:
                self.step_intake()
                backoff_s = BACKOFF_S[0]
            except BrokerError as error:
                self._observer.trouble("intake", error)
                self._stopping.wait(backoff_s)
                backoff_s = min(2 * backoff_s, BACKOFF_S[1])

    def step_intake(self) -> int:
        """One turn of intake: claim where it is due, take what the credit allows, prepare it. Frames taken."""
        self._observer.turned("intake")
        messages: list[Message] = []
        max_frames, max_bytes = self._credit.available(IDLE_S)
        if self._monotonic() >= self._next_claim_s:
            self._intake.reconcile()
            if max_frames:
                messages = self._intake.claim(max_frames=max_frames, max_bytes=max_bytes)
                self._count_claims(messages)
            self._next_claim_s = self._monotonic() + self._config.claim_every_s
        if max_frames and not messages:
            begin = self._monotonic()
            messages = self._intake.take(max_frames=max_frames, max_bytes=max_bytes)
            if not messages:
                self._intake.wait(IDLE_S)
                return 0
            self._observer.taken(
                sum(message.frame_count for message in messages),
                sum(message.size_bytes for message in messages),
                self._monotonic() - begin,
            )
        self._accept(messages)
        return sum(message.frame_count for message in messages)

    def _count_claims(self, messages: Sequence[Message]) -> None:
        for camera in {message.camera for message in messages}:
            own = [message for message in messages if message.camera == camera]
            self._observer.redelivered(camera, len(own), sum(message.crashes > 0 for message in own))

    def _accept(self, messages: list[Message]) -> None:
        if not messages:
            return
        for message in messages:
            self._credit.spend(message.frame_count, message.size_bytes)
        begin = self._monotonic()
        if self._pool is None or len(messages) == 1:
            prepared = [self._preparer.prepare(message) for message in messages]
        else:
            share = -(-len(messages) // self._config.decode_threads)
            chunks = [messages[start : start + share] for start in range(0, len(messages), share)]
            prepared = [item for chunk in self._pool.map(self._prepare_all, chunks) for item in chunk]
        self._observer.prepared(sum(message.frame_count for message in messages), self._monotonic() - begin)
        ready: list[PreparedFrame[Image]] = []
        for work, frames in prepared:
            with self._open_lock:
                self._open[work.message.camera, work.message.entry_id] = work
            refused = work.message.frame_count - len(frames)
            if refused:
                self._credit.give_back(frames=refused)
            ready.extend(frames)
            if work.open == 0:
                self._decided.put(_Decided([], [], [work]))
        if ready:
            self._handover.put(ready)

    def _prepare_all(self, messages: list[Message]) -> list[tuple[MessageWork[Image], list[PreparedFrame[Image]]]]:
        return [self._preparer.prepare(message) for message in messages]

    # --- compute -----------------------------------------------------------------------------------------------------
    def _run_compute(self) -> None:
        while not self._handover.finished and not self._abandon.is_set():
            self.step_compute()

    def step_compute(self) -> int:
        """One turn of compute: wait for a batch, judge it, hand it on. Frames judged or refused."""
        self._observer.turned("compute")
        begin = self._monotonic()
        batch = self._handover.get(IDLE_S)
        self._observer.waited(self._monotonic() - begin)
        if not batch:
            return 0
        self._credit.give_back(frames=len(batch))
        self._decided.put(_Decided(batch, self._judge_batch(batch), []))
        return len(batch)

    def _judge_batch(self, batch: list[PreparedFrame[Image]]) -> list[object]:
        """Outcomes in the batch's order.

        Where a batch fails, its frames are judged alone, so that one bad frame does not take the others with it.
        """
        now_us = self._now_us()
        live = [frame for frame in batch if frame.source.deadline_us is None or frame.source.deadline_us > now_us]
        judged: dict[int, object] = {}
        if live:
            try:
                outcomes, timing = self._judge.judge(
                    [frame.image for frame in live],
                    [frame.work.message.camera for frame in live],
                    [frame.identity for frame in live],
                )
                self._observer.computed(len(live), timing.backbone_seconds, timing.score_seconds)
                judged = {id(frame): outcome for frame, outcome in zip(live, outcomes, strict=True)}
            except Exception as error:  # the loop decides: a fault of compute must cost one frame, not the worker
                self._observer.surprise("compute", error)
                if len(batch) > 1:
                    return [outcome for frame in batch for outcome in self._judge_batch([frame])]
                return [Refusal(Reason.INTERNAL, f"{type(error).__name__}: {str(error)[:200]}", batch[0].source)]
        expired = "its deadline passed while it waited for the backbone"
        return [
            judged[id(frame)] if id(frame) in judged else Refusal(Reason.EXPIRED, expired, frame.source)
            for frame in batch
        ]

    # --- settle ------------------------------------------------------------------------------------------------------
    def _run_settle(self) -> None:
        while not self._abandon.is_set():
            if self.step_settle() is None:
                return

    def step_settle(self) -> int | None:
        """One turn of settle: publish every message that is decided by now. Messages published; None at the end."""
        self._observer.turned("settle")
        try:
            decided = self._decided.get(timeout=IDLE_S)
        except queue.Empty:
            return 0
        whole: list[MessageWork[Image]] = []
        ended = False
        while True:
            if decided is None:
                ended = True
                break
            whole.extend(decided.whole)
            for frame, outcome in zip(decided.frames, decided.outcomes, strict=True):
                if frame.work.decide(frame.offset, outcome):
                    whole.append(frame.work)
            if len(whole) >= SETTLE_MESSAGES:
                break
            try:
                decided = self._decided.get_nowait()
            except queue.Empty:
                break
        for start in range(0, len(whole), SETTLE_MESSAGES):
            self._publish(whole[start : start + SETTLE_MESSAGES])
        return None if ended else len(whole)

    def _publish(self, works: list[MessageWork[Image]]) -> None:
        """Settle messages, for as long as it takes: what is decided is never thrown away while this worker lives."""
        backoff_s = BACKOFF_S[0]
        while True:
            begin = self._monotonic()
            try:
                verdicts, lost = publish(self._settler, self._concluder, works, self._kept_folder)
                break
            except BrokerError as error:
                self._observer.trouble("settle", error)
                if len(works) > 1 and not isinstance(error, BrokerUnavailable):
                    for work in works:  # one message that Redis refuses must not hold up the others
                        self._publish([work])
                    return
                if self._abandon.wait(backoff_s):
                    return
                backoff_s = min(2 * backoff_s, BACKOFF_S[1])
        with self._open_lock:
            for work in works:
                self._open.pop((work.message.camera, work.message.entry_id), None)
        self._credit.give_back(size_bytes=sum(work.message.size_bytes for work in works))
        self._observer.settled(verdicts, self._monotonic() - begin, self._now_us())
        if lost:
            self._observer.lost_race(lost)


@dataclass(frozen=True, slots=True, eq=False)
class _Decided(Generic[Image]):
    """One hand-over to settle: judged frames with their outcomes, and messages that were decided at intake."""

    frames: list[PreparedFrame[Image]]
    outcomes: list[Any]
    whole: list[MessageWork[Image]]
