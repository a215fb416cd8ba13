"""The worker: three overlapping stages around one backbone.

    intake   take, claim and prepare messages        (its thread; beside a GPU images are decoded in a small pool)
    compute  batch frames and judge them             (one thread a lane; on a CPU it decodes its images too)
    settle   publish what is decided, whole messages (its thread)

Beside them, messages over which a worker died are judged alone in a process of their own (isolation_stage.py).

The stop order, and why. Intake stops first, so that nothing new is begun. Then the hand-over is closed, and the lanes
finish what it holds: those frames are paid for. When the last lane has ended, settle publishes what is left. What is
not decided when the drain time ends is released to the other workers, and does not count as a crash. The heartbeat
stops last: while a message may still be settled here, nobody should claim it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from gaussline.worker.broker.copies import SetResults
from gaussline.worker.broker.intake import Intake
from gaussline.worker.broker.settle import Settler
from gaussline.worker.contract.limits import MessageLimits
from gaussline.worker.engine.batcher import Batcher
from gaussline.worker.engine.compute_stage import ComputeStage
from gaussline.worker.engine.conclude import Concluder
from gaussline.worker.engine.copy_outlet import CopyOutlet
from gaussline.worker.engine.credit import Credit
from gaussline.worker.engine.decided import Decided
from gaussline.worker.engine.handover import Handover
from gaussline.worker.engine.intake_stage import IntakeStage
from gaussline.worker.engine.isolation_stage import Isolated, IsolationStage
from gaussline.worker.engine.judgement import Judge
from gaussline.worker.engine.kept_outlet import KeptOutlet
from gaussline.worker.engine.observer import Observer
from gaussline.worker.engine.open_messages import OpenMessages
from gaussline.worker.engine.outlet import Outlet
from gaussline.worker.engine.prepare import PreparedFrame, Preparer
from gaussline.worker.engine.settle_stage import SettleStage
from gaussline.worker.errors import BrokerError

Image = TypeVar("Image")
WARM_LOOK_S = 0.25
"""How soon a worker that warms up notices a stop."""


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """How one worker runs.

    Attributes:
        batch_max_frames: frames of one backbone pass.
        batch_wait_s: longest wait of a frame for company.
        decode_threads: threads that decode beside the lanes; 0 where the lanes decode.
        intake_bytes: encoded bytes taken and not yet settled.
        claim_every_s: period of looking for dead workers' messages, and of reconciling with the streams.
        drain_s: time to finish in after a stop.
        keep_pass_share, reservoir_share, features_share: see `Concluder`.
        lanes: batches that are judged side by side.
        standby_after_s: see `IsolationStage`.
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
    lanes: int = 1
    standby_after_s: float = 10.0


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
        kept: KeptOutlet | None = None,
        isolated: Isolated | None = None,
        results: SetResults | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._broker_intake = intake
        self._config = config
        self._monotonic = monotonic
        self._observer = observer = observer or Observer()
        self._stopping = threading.Event()
        self._abandon = threading.Event()
        # A batch for every lane and one more keep the backbone fed; more would only age frames out of the fair order.
        ahead = (config.lanes + 1) * config.batch_max_frames
        least = 2 * config.batch_max_frames if config.lanes > 1 else 1
        self._credit = Credit(ahead, config.intake_bytes, least)
        self._handover: Handover[PreparedFrame[Image]] = Handover(
            Batcher(config.batch_max_frames, config.batch_wait_s), monotonic
        )
        self._outlet: Outlet[Decided[Image]] = Outlet(monotonic)
        self._open = OpenMessages()
        # A message that is judged in isolation can kill a worker only if that is killed from outside, again and again.
        max_crashes = 3 if isolated is None else 10
        preparer = Preparer(
            judge.to_image,
            limits=config.message_limits,
            now_us=now_us,
            max_crashes=max_crashes,
            on_surprise=partial(observer.surprise, "prepare"),
        )
        self.isolation: IsolationStage | None = None
        if isolated is not None:
            self.isolation = IsolationStage(
                isolated,
                preparer,
                self._outlet,
                observer=observer,
                stopping=self._stopping,
                abandon=self._abandon,
                standby_after_s=config.standby_after_s,
            )
        self.compute: ComputeStage[Image] = ComputeStage(
            judge,
            self._handover,
            self._outlet,
            self._credit,
            lanes=config.lanes,
            now_us=now_us,
            observer=observer,
            abandon=self._abandon,
            preparer=None if config.decode_threads else preparer,
            monotonic=monotonic,
        )
        self.intake: IntakeStage[Image] = IntakeStage(
            intake,
            preparer,
            self._handover,
            self._outlet,
            self._credit,
            self._open,
            decode_threads=config.decode_threads,
            begin_thread=partial(judge.begin_thread, computes=False),
            claim_every_s=config.claim_every_s,
            observer=observer,
            stopping=self._stopping,
            warm=self.compute.warm,
            isolate=None if self.isolation is None else self.isolation.put,
            expect=None if self.isolation is None else self.isolation.expect,
            monotonic=monotonic,
        )
        concluder = Concluder(
            config.line,
            config.name,
            config.keep_pass_share,
            reservoir_share=config.reservoir_share,
            features_share=config.features_share,
        )
        self.settle: SettleStage[Image] = SettleStage(
            settler,
            concluder,
            self._outlet,
            self._credit,
            self._open,
            now_us=now_us,
            observer=observer,
            abandon=self._abandon,
            kept=kept,
            copies=None if results is None else CopyOutlet(results, concluder, observer, now_us),
            monotonic=monotonic,
        )
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._lanes_left = config.lanes
        self._failure: BaseException | None = None

    def start(self) -> None:
        """Start the three stages."""
        self._start("intake", self.intake.run, self._handover.close)
        for lane in range(self._config.lanes):
            self._start("compute", partial(self.compute.run, lane), self._lane_ended, f"-{lane}")
        self._start("settle", self.settle.run, lambda: None)
        if self.isolation is not None:
            self._start("isolation", self.isolation.run, lambda: None)

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
        self.intake.close()
        released = self._release()
        if self._failure is not None:
            raise self._failure
        return released

    def run(self) -> int:
        """Start, serve until `stop`, drain."""
        self.start()
        return self.join()

    @property
    def warm(self) -> bool:
        """Every lane is ready for its first batch."""
        return self.compute.warm.is_set()

    def wait_warm(self) -> bool:
        """Wait until every lane is ready for its first batch; False where the worker was stopped before."""
        while not self._stopping.is_set():
            if self.compute.warm.wait(WARM_LOOK_S):
                return True
        return False

    @property
    def held_bytes(self) -> int:
        """Encoded bytes taken and not yet settled."""
        return self._credit.held_bytes

    def _start(self, stage: str, run: Callable[[], None], ended: Callable[[], None], suffix: str = "") -> None:
        thread = threading.Thread(target=self._guard, args=(stage, run, ended), name=stage + suffix, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _release(self) -> int:
        left = self._open.clear()
        try:
            if left:
                self._broker_intake.release(left)
            if not self._threads[0].is_alive():  # intake; else it may hold what it has not said yet
                self._broker_intake.leave()
        except BrokerError as error:
            self._observer.trouble("release", error)  # they will be claimed once the heartbeat is gone
        return len(left)

    def _lane_ended(self) -> None:
        with self._lock:
            self._lanes_left -= 1
            last = self._lanes_left == 0
        if last:
            self._outlet.close()

    def _guard(self, name: str, run: Callable[[], None], ended: Callable[[], None]) -> None:
        """A stage's thread. A fault that nobody expected stops the worker, which then drains without that thread."""
        try:
            run()
        except BaseException as error:
            self._failure = self._failure or error
            self._observer.surprise(name, error)
            self._stopping.set()
        finally:
            ended()
