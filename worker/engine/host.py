"""A whole worker process: connections, backbone, models, stages, heartbeat and watch, put together and taken apart."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from gaussline.worker.broker.client import Redis, open_redis, time_us
from gaussline.worker.broker.control import Control
from gaussline.worker.broker.copies import SetResults
from gaussline.worker.broker.dead_letters import DeadLetters
from gaussline.worker.broker.feature_log import age_features
from gaussline.worker.broker.heartbeat import Heartbeat, life_of
from gaussline.worker.broker.heat_maps import HeatMaps
from gaussline.worker.broker.intake import Intake
from gaussline.worker.broker.kept import KeptFrames
from gaussline.worker.broker.kept_store import open_kept_store
from gaussline.worker.broker.registry import Registry
from gaussline.worker.broker.seal import open_seal
from gaussline.worker.broker.sets import Sets
from gaussline.worker.broker.settle import SettleBounds, Settler
from gaussline.worker.broker.verdicts import trim_verdicts
from gaussline.worker.contract.keys import MAIN
from gaussline.worker.contract.limits import MessageLimits
from gaussline.worker.contract.model import Model
from gaussline.worker.contract.trial import CANARY, SHADOW
from gaussline.worker.engine.book import ModelBook, Page, first_model_of
from gaussline.worker.engine.clock import RedisClock
from gaussline.worker.engine.isolated_main import about
from gaussline.worker.engine.isolated_process import IsolatedProcess
from gaussline.worker.engine.kept_outlet import KeptOutlet
from gaussline.worker.engine.load import image_limits, load_judge
from gaussline.worker.engine.maps import MapDesk
from gaussline.worker.engine.memory import settle_memory
from gaussline.worker.engine.observer import Observer
from gaussline.worker.engine.worker import Worker, WorkerConfig
from gaussline.worker.errors import BrokerError, GausslineError
from gaussline.worker.settings import DECODERS, Settings
from gaussline.worker.vision.decode_pool import DecodePool
from gaussline.worker.vision.runtime import RuntimeChoice, use_threads
from gaussline.worker.vision.scorer import PreparedModel

KEPT_INDEX_BYTES = 64 * 2**20
"""Most bytes of kept frames' verdicts in Redis where the frames lie elsewhere: about 50,000 frames."""
WATCH_S = 1.0
"""How soon a moved pointer is seen where its event was lost."""
AGE_PAGES = 20
AGE_S = 30.0
"""How often dead letters over their age are removed where no newer ones come."""


def decoders(wished: int | None, runtime: RuntimeChoice) -> int:
    """Threads that decode beside the lanes; 0 leaves it to the lanes, where each is one thread of a CPU."""
    if wished is not None:
        return wished
    return 0 if runtime.device == "cpu" and runtime.threads == 1 else DECODERS


def worker_name(settings: Settings) -> str:
    """The configured name, else one of host and process."""
    if settings.worker_name is not None:
        return settings.worker_name
    host = "".join(letter for letter in socket.gethostname() if letter.isalnum() or letter in "-.")[:40] or "host"
    return f"{host}-{os.getpid()}".lstrip("-.")


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the worker can judge: empty `reasons` mean yes."""

    reasons: tuple[str, ...]

    @property
    def ready(self) -> bool:
        """It can judge."""
        return not self.reasons


class Host:
    """One worker process.

    `open` waits for a first promoted model, because only a model names the backbone; then it loads and measures that.
    """

    def __init__(self, settings: Settings, observer: Observer | None = None) -> None:
        self.settings = settings
        self.name = worker_name(settings)
        self._life = life_of(self.name)
        self._observer = observer or Observer()
        self._stopping = threading.Event()
        self.client = self._connect()
        self._worker: Worker[Any] | None = None
        self._book: ModelBook[PreparedModel] | None = None
        self._heartbeat: Heartbeat | None = None
        self._maps: MapDesk | None = None
        self._pool: DecodePool | None = None
        self._watcher = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._tidier = threading.Thread(target=self._tidy, name="tidy", daemon=True)
        self.runtime: RuntimeChoice | None = None
        self.clock: RedisClock | None = None

    def _connect(self) -> Redis:
        return open_redis(self.settings)

    def observe(self, observer: Observer) -> None:
        """Whom to tell; before `open`."""
        self._observer = observer

    @property
    def stopping(self) -> bool:
        """It was told to stop."""
        return self._stopping.is_set()

    # --- life --------------------------------------------------------------------------------------------------------
    def stop(self) -> None:
        """Drain and end; safe in a signal handler."""
        self._stopping.set()
        if self._worker is not None:
            self._worker.stop()

    def wait_for_model(self) -> Model | None:
        """The first promoted model, however long it takes; None where the worker was stopped meanwhile."""
        registry = Registry(self.client, self.settings.line, seal=open_seal(self.settings))
        control = Control(self.client, self.settings.line)
        while not self._stopping.is_set():
            try:
                found = first_model_of(registry, self.client, self.settings.worker_set)
                if found is not None:
                    return found[1]
                self._observer.turned("waiting")
                control.wait(WATCH_S)
            except BrokerError as error:
                self._observer.trouble("waiting for a model", error)
                self._stopping.wait(WATCH_S)
        return None

    def open(self, model: Model) -> None:
        """Load the model's backbone, measure how to run it, load every model, and make the stages.

        Raises GausslineError: a wrong weights file, a device that is not there, Redis away.
        """
        settings = self.settings
        loaded = load_judge(settings, model, self.client, self._observer, map_desk=self._map_desk)
        self.runtime = runtime = loaded.runtime
        decode_threads = decoders(settings.decode_threads, runtime)
        if settings.decode_isolation:
            loaded.judge.pool = self._pool = DecodePool(
                image_limits(settings), processes=decode_threads or runtime.lanes, timeout_s=settings.decode_timeout_s
            )
        self._book = loaded.book
        self.clock = RedisClock(lambda: time_us(self.client))
        store = open_kept_store(settings)
        limits = MessageLimits(settings.message_max_bytes, settings.message_max_frames)
        self._worker = Worker(
            # Each stage has its own connection: a blocking read of one must not hold up another's write.
            Intake(
                self._connect(),
                settings.line,
                self._life,
                claim_after_s=settings.claim_after_s,
                slow_claim_after_s=settings.slow_claim_after_s,
                worker_set=settings.worker_set,
            ),
            Settler(self._connect(), settings.line, settle_bounds(settings)),
            loaded.judge,
            WorkerConfig(
                line=settings.line,
                name=self.name,
                batch_max_frames=runtime.batch_size,
                batch_wait_s=settings.batch_wait_ms / 1000.0,
                intake_bytes=settings.intake_bytes,
                decode_threads=decode_threads,
                claim_every_s=min(1.0, settings.claim_after_s / 2),
                drain_s=settings.drain_s,
                keep_pass_share=settings.keep_pass_share,
                message_limits=limits,
                reservoir_share=settings.reservoir_share,
                features_share=settings.features_share if settings.features == "sample" else 1.0,
                lanes=runtime.lanes,
            ),
            now_us=self.clock,
            observer=self._observer,
            kept=None if store is None else KeptOutlet(store, self._observer),
            isolated=IsolatedProcess(lambda: about(settings, runtime), limits=limits, now_us=self.clock),
            results=None if settings.worker_set == MAIN else self._results(self._connect(), settings.worker_set),
        )
        self._heartbeat = Heartbeat(
            self._connect(),
            settings.line,
            self.name,
            life=self._life,
            period_s=settings.heartbeat_s,
            describe=self.describe,
            on_error=lambda error: self._observer.trouble("heartbeat", error),
            on_loss=lambda error: self._observer.surprise("heartbeat", error),
        )

    def _map_desk(self, runtime: RuntimeChoice) -> MapDesk | None:
        """Where failed frames get their heat maps; a compiled backbone does not give its maps away."""
        settings = self.settings
        if settings.heat_maps == "off" or runtime.compiled:
            return None
        ring = self._ring(self._connect())
        self._maps = MapDesk(
            ring.put,
            waiting=settings.heat_maps_queue_frames,
            observer=self._observer,
            begin_thread=partial(use_threads, 1),
        )
        return self._maps

    def _ring(self, client: Redis) -> HeatMaps:
        return HeatMaps(
            client,
            self.settings.line,
            max_bytes=self.settings.heat_maps_max_bytes,
            max_age_s=self.settings.heat_maps_max_age_s,
            writer=self._life,
        )

    def run(self, ready: Callable[[], None] = lambda: None) -> int:
        """Serve until `stop`; the number of messages released undecided. Calls `ready` once it can take frames."""
        assert self._worker is not None
        assert self._heartbeat is not None
        self._heartbeat.start()
        self._watcher.start()
        self._tidier.start()
        if self._maps is not None:
            self._maps.start()
        try:
            if self._stopping.is_set():
                self._worker.stop()
            settle_memory()
            self._worker.start()
            if self._worker.wait_warm():
                ready()
            return self._worker.join()
        finally:
            self._stopping.set()
            if self._maps is not None:
                self._maps.stop()
            self._heartbeat.stop()
            if self._pool is not None:
                self._pool.close()

    # --- what it tells -----------------------------------------------------------------------------------------------
    def describe(self) -> dict[str, Any]:
        """What the line is told of this worker with every heartbeat."""
        page = None if self._book is None else self._book.page
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "set": self.settings.worker_set,
            "runtime": str(self.runtime),
            "warm": self._worker is not None and self._worker.warm,
            "models": {} if page is None else {name: entry.ref.version for name, entry in page.entries.items()},
            "trials": {} if page is None else _trials(page),
            "refused": {} if page is None else dict(page.refused),
        }

    def readiness(self, *, checking: bool = False) -> Readiness:
        """Whether it can judge, and if not, why not; `checking` asks of one that is not going to run."""
        reasons = []
        if self._book is None:
            of_set = "" if self.settings.worker_set == MAIN else f" for set {self.settings.worker_set}"
            reasons.append(f"no model is promoted yet{of_set}, or its backbone is still loading")
        else:
            if not self._book.page.entries:
                reasons.append("no model is loaded")
            if self._worker is not None and not self._worker.warm and not checking:
                reasons.append("its backbone warms up")
        try:
            self.client.ping()
            # A version on trial that cannot be loaded stops nothing: the judge is told of it with the heartbeat.
            if self._book is not None and self.clock is not None:
                reasons += self._book.behind(self.clock())
        except Exception as error:  # whatever it is, Redis did not answer
            reasons.append(f"Redis does not answer: {type(error).__name__}")
        if self._stopping.is_set():
            reasons.append("draining")
        return Readiness(tuple(reasons))

    @property
    def held_bytes(self) -> int:
        """Encoded bytes taken and not yet settled."""
        return 0 if self._worker is None else self._worker.held_bytes

    # --- the watch ---------------------------------------------------------------------------------------------------
    def _let_old_go(self, client: Redis) -> None:
        """What is over its age and is not pushed out by newer things; a bounded piece of it a turn."""
        settings = self.settings
        assert self._book is not None
        kept = KeptFrames(client, settings.line)
        for _ in range(AGE_PAGES):
            if not kept.age(settings.kept_max_age_s):
                break
        for model in self._book.page.entries:
            for _ in range(AGE_PAGES):
                if not age_features(client, settings.line, model, settings.features_max_age_s):
                    break
        # Of every set: where none of its own workers is left, its results still have their age.
        for name in Sets(client, settings.line).read():
            for _ in range(AGE_PAGES):
                if not self._results(client, name).age():
                    break

    def _results(self, client: Redis, worker_set: str) -> SetResults:
        settings = self.settings
        return SetResults(
            client,
            settings.line,
            worker_set,
            max_bytes=settings.set_results_max_bytes,
            max_age_s=settings.set_results_max_age_s,
        )

    def _watch(self) -> None:
        """Beside the stages: turn the page when pointers move, follow Redis's clock."""
        control = Control(self._connect(), self.settings.line)
        assert self._book is not None
        assert self.clock is not None
        while not self._stopping.is_set():
            try:
                control.wait(WATCH_S / 2)
                self._book.refresh()
                self.clock.measure()
                self._observer.turned("watch")
            except GausslineError as error:
                self._observer.trouble("watch", error)
                self._stopping.wait(WATCH_S)
            except Exception as error:  # the watch must outlive what nobody expected, or promotions stop silently
                self._observer.surprise("watch", error)
                self._stopping.wait(WATCH_S)

    def _tidy(self) -> None:
        """Beside the stages, and beside the watch: a promotion waits for nothing that has only to be tidied up."""
        client = self._connect()
        ring = self._ring(client)
        letters, aged_s = DeadLetters(client, self.settings.line), float("-inf")
        while not self._stopping.wait(WATCH_S / 2):
            try:
                trim_verdicts(
                    client,
                    self.settings.line,
                    min_age_s=self.settings.verdict_min_age_s,
                    max_bytes=self.settings.verdict_max_bytes,
                    policy=self.settings.verdict_full_policy,
                )
                if time.monotonic() - aged_s >= AGE_S:
                    letters.age(self.settings.dead_max_age_s)
                    self._let_old_go(client)
                    aged_s = time.monotonic()
                ring.trim()
            except GausslineError as error:
                self._observer.trouble("tidy", error)
                self._stopping.wait(WATCH_S)
            except Exception as error:  # what nobody expected must not let a line fill up silently
                self._observer.surprise("tidy", error)
                self._stopping.wait(WATCH_S)


def settle_bounds(settings: Settings) -> SettleBounds:
    """The bounds of what settling writes, from the settings."""
    return SettleBounds(
        # Where the bytes lie elsewhere, only the verdicts of kept frames are held here, and are bounded by themselves.
        kept_max_bytes=settings.kept_max_bytes if settings.kept_store == "redis" else KEPT_INDEX_BYTES,
        kept_max_age_s=settings.kept_max_age_s,
        dead_max_bytes=settings.dead_max_bytes,
        dead_max_age_s=settings.dead_max_age_s,
        features_max_bytes=settings.features_max_bytes,
    )


def _trials(page: Page[PreparedModel]) -> dict[str, int]:
    """Versions on trial, by `model/channel`."""
    canaries = {f"{name}/{CANARY}": entry.ref.version for name, (entry, _) in page.canaries.items()}
    return canaries | {f"{name}/{SHADOW}": entry.ref.version for name, entry in page.shadows.items()}
