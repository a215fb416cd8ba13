"""The state of a whole line at one moment: what the exporter, `gaussline status` and `gaussline doctor` look at."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gaussline.worker.broker.cameras import read_cameras
from gaussline.worker.broker.client import Redis, translated
from gaussline.worker.broker.dead_letters import DeadCount, DeadLetters
from gaussline.worker.broker.learners import LearnersReader, LearnerState
from gaussline.worker.broker.ledger import Ledger, read_ledger
from gaussline.worker.broker.registry import Pin, Pointer, Registry
from gaussline.worker.broker.sets import SetCounts, Sets, foreign_models
from gaussline.worker.broker.verdicts import Verdicts
from gaussline.worker.contract.keys import GROUP, MAIN, Keys
from gaussline.worker.errors import NotFound


@dataclass(frozen=True, slots=True)
class WorkerState:
    """One worker, as it described itself with its last heartbeat.

    Attributes:
        alive: its heartbeat has not run out.
        models, trials: version by model, and by `model/channel` of a trial.
        refused: why a version cannot be used, by model or `model/channel`.
        worker_set: the set of workers that it belongs to.
        warm: it takes frames; one that was just started warms its backbone up before.
    """

    name: str
    alive: bool
    host: str
    pid: int
    runtime: str
    models: Mapping[str, int]
    trials: Mapping[str, int]
    refused: Mapping[str, str]
    worker_set: str = MAIN
    warm: bool = True


@dataclass(frozen=True, slots=True)
class PendingState:
    """Messages of one camera in workers' hands: how many, and how long ago the oldest of them was admitted."""

    messages: int
    age_s: float


@dataclass(frozen=True, slots=True)
class SetState:
    """One set of workers: how many live, how many cameras it settles, and what became of the copies for it.

    Attributes:
        models: that its workers alone judge by; of `main` nothing stands here.
    """

    name: str
    alive: int
    cameras: int
    copied_cameras: int
    models: frozenset[str]
    counts: SetCounts


@dataclass(frozen=True, slots=True)
class LineState:
    """A line, looked at once.

    Attributes:
        totals: the line's own counters, in bytes and entries.
        subscribers: seconds that each registered subscriber is behind the newest verdict.
        stated_rates: false-positive rate of each model's stable version, where its report names one.
        memory_bytes, memory_max_bytes: of Redis; 0 where it has no limit.
    """

    line: str
    ledger: Ledger
    pending: Mapping[str, PendingState]
    workers: tuple[WorkerState, ...]
    pointers: tuple[Pointer, ...]
    pins: Mapping[str, Pin]
    stated_rates: Mapping[str, float]
    dead: tuple[DeadCount, ...]
    totals: Mapping[str, int]
    subscribers: Mapping[str, float]
    memory_bytes: int
    memory_max_bytes: int
    learners: tuple[LearnerState, ...] = ()
    sets: tuple[SetState, ...] = ()

    @property
    def alive(self) -> int:
        """Workers whose heart beats."""
        return sum(worker.alive for worker in self.workers)

    def followers(self, model: str) -> list[WorkerState]:
        """Living workers that ought to judge by a model: those of the sets that name it, else those of `main`."""
        own = {each.name for each in self.sets if model in each.models} or {MAIN}
        return [worker for worker in self.workers if worker.alive and worker.worker_set in own]


class LineReader:
    """Reads the state of one line; what never changes (a version's stated rate) is read once."""

    def __init__(self, client: Redis, line: str) -> None:
        self._client = client
        self._keys = Keys(line)
        self._line = line
        self._registry = Registry(client, line)
        self._learners = LearnersReader(client, line)
        self._rates: dict[tuple[str, int], float | None] = {}

    def read(self) -> LineState:
        """The state now. Raises BrokerUnavailable, BrokerError."""
        ledger = read_ledger(self._client, self._line)
        workers = read_workers(self._client, self._line)
        pointers = tuple(self._registry.pointers())
        with translated("reading the state of the line"):
            memory = self._client.info("memory")
            totals = self._client.hgetall(self._keys.totals)
        return LineState(
            self._line,
            ledger,
            self._pending(ledger),
            workers,
            pointers,
            self._registry.pins(),
            self._stated(pointers),
            tuple(DeadLetters(self._client, self._line).counts()),
            {field.decode(): int(value) for field, value in totals.items() if value.lstrip(b"-").isdigit()},
            self._subscribers(ledger.now_us),
            int(memory["used_memory"]),
            int(memory.get("maxmemory", 0)),
            self._learners.read((pointer.model for pointer in pointers), ledger.now_us),
            self._read_sets(workers),
        )

    def _read_sets(self, workers: Sequence[WorkerState]) -> tuple[SetState, ...]:
        """`main` first, and alone where no other set was ever declared."""
        sets = Sets(self._client, self._line)
        declared = sets.read()
        foreign = foreign_models(declared, read_cameras(self._client, self._line)) if declared else set()
        stand = list(sets.assignments().values()) if declared else []
        found = []
        for name in (MAIN, *declared):
            models = set(declared[name].models.values()) & foreign if name in declared else set()
            found.append(
                SetState(
                    name,
                    sum(worker.alive and worker.worker_set == name for worker in workers),
                    sum(each.settled_by == name for each in stand),
                    sum(each.copied_to == name for each in stand),
                    frozenset(models),
                    sets.counts(name),
                )
            )
        return tuple(found)

    def _pending(self, ledger: Ledger) -> dict[str, PendingState]:
        cameras = [row.camera for row in ledger.rows]
        with translated("reading what is pending"):
            pipeline = self._client.pipeline(transaction=False)
            for camera in cameras:
                pipeline.xpending(self._keys.frames(camera), GROUP)
            answers = pipeline.execute(raise_on_error=False)
        found = {}
        for camera, answer in zip(cameras, answers, strict=True):
            if isinstance(answer, dict) and answer["pending"]:
                oldest_ms = int(answer["min"].split(b"-")[0])
                age_s = max(0.0, ledger.now_us / 1e6 - oldest_ms / 1e3)
                found[camera] = PendingState(int(answer["pending"]), age_s)
            else:
                found[camera] = PendingState(0, 0.0)  # no group yet, or nothing in anybody's hands
        return found

    def _stated(self, pointers: tuple[Pointer, ...]) -> dict[str, float]:
        rates = {}
        for pointer in pointers:
            if pointer.channel != "stable":
                continue
            key = (pointer.model, pointer.version)
            if key not in self._rates:
                try:
                    rate = self._registry.version(*key).report.get("stated_rate")
                except NotFound:
                    rate = None
                self._rates[key] = float(rate) if isinstance(rate, int | float) else None
            stated = self._rates[key]
            if stated is not None:
                rates[pointer.model] = stated
        return rates

    def _subscribers(self, now_us: int) -> dict[str, float]:
        with translated("reading the subscribers"):
            behind = {}
            for name, entry in Verdicts(self._client, self._line).subscribers().items():
                first = self._client.xrange(self._keys.verdicts, f"({entry}", "+", count=1)
                age_s = now_us / 1e6 - int(first[0][0].split(b"-")[0]) / 1e3 if first else 0.0
                behind[name] = max(0.0, age_s)
        return behind


def read_workers(client: Redis, line: str) -> tuple[WorkerState, ...]:
    """Every worker that said something of itself, the dead ones among them, by name."""
    keys = Keys(line)
    with translated("reading the workers"):
        raw = {name.decode(): json.loads(text) for name, text in client.hgetall(keys.workers).items()}
        pipeline = client.pipeline(transaction=False)
        for name, said in raw.items():
            pipeline.exists(keys.worker(said.get("life", name)))
        alive = pipeline.execute()
    return tuple(
        _worker(name, bool(beats), said) for (name, said), beats in sorted(zip(raw.items(), alive, strict=True))
    )


def _worker(name: str, alive: bool, said: dict[str, Any]) -> WorkerState:
    return WorkerState(
        name,
        alive,
        str(said.get("host", "")),
        int(said.get("pid", 0)),
        str(said.get("runtime", "")),
        dict(said.get("models", {})),
        dict(said.get("trials", {})),
        dict(said.get("refused", {})),
        str(said.get("set", MAIN)),
        bool(said.get("warm", True)),
    )
