"""A drill: a line under load whose master fails again and again, and a count of what was lost and doubled.

kill      SIGKILL of the master
lag       the replicas get nothing for a while, then the master is killed: what they did not copy is gone
stop      the master hangs (SIGSTOP) until another has taken its place, then goes on
cut_off   Sentinels and replicas lose the master, its clients do not: it goes on beside its successor for a while
switch    a failover on purpose (SENTINEL FAILOVER, CLUSTER FAILOVER)
"""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import redis

from gaussline.worker.broker.client import connect
from gaussline.worker.broker.ledger import Ledger, read_ledger
from gaussline.worker.broker.replication import NO_WAITING, Waiting
from gaussline.worker.broker.verdicts import Verdicts
from gaussline.worker.contract.clock import from_text
from gaussline.worker.errors import BrokerError
from tests.faults.zygote import Process, Zygote
from tests.support.proxy import Proxy
from tests.support.redis_node import Node
from tests.support.replicated import ClusterSet, SentinelSet, Topology
from tests.support.waiting import eventually

LINE: Final = "drill"
SUBSCRIBER: Final = "mes"
CAMERAS: Final = ("cam0", "cam1")
WORKERS: Final = ("w0", "w1")
FAULTS: Final = ("kill", "lag", "stop", "cut_off", "switch")
TOPOLOGIES: Final = ("sentinel", "cluster")
LAG_S: Final = 0.5
"""How long the replicas of `lag` are cut off."""
CUT_S: Final = 3.0
"""`min-replicas-max-lag` of deploy/redis: so long a master that was cut off takes writes, and a second more."""
LOAD_S: Final = 1.0
PATIENCE_S: Final = 90.0
"""Sentinels that were held still do nothing for half a minute, and fail over after that (TILT)."""
MANY: Final = 10**6
TOLD: Final = ("role", "master_port", "master_link_status", "connected_slaves", "master_repl_offset")


@dataclass(slots=True)
class Failover:
    """One failover.

    Attributes:
        at_us: when the fault began.
        silent_s: the longest time without a verdict from then on, until it was over.
        over_us: when all was as before.
    """

    fault: str
    at_us: int
    over_us: int = 0
    silent_s: float = 0.0


@dataclass(slots=True)
class Tally:
    """What a drill came to.

    Attributes:
        admitted: frames whose producer was told so.
        lost: of these, the ones that have no verdict.
        doubled: frames that a subscriber was handed two verdicts of.
        lost_within_s: from the admission of the first lost frame of a failover to its fault, or from the fault to the
            last one: the longest.
        wrong: what must not be at any failover, such as a verdict of a frame that nobody sent.
        unreplicated: how often too few replicas had a frame in time.
    """

    admitted: int = 0
    lost: int = 0
    doubled: int = 0
    lost_within_s: float = 0.0
    unreplicated: int = 0
    failovers: list[Failover] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Reader:
    """Reads the verdict stream as any subscriber does, and forgets nothing."""

    def __init__(self, url: str, waiting: Waiting) -> None:
        self.entries: list[tuple[str, dict[str, Any]]] = []
        self.position = "0-0"
        self._stopping = threading.Event()
        self._verdicts = Verdicts(connect(url, timeout_s=1.0, line=LINE, waiting=waiting), LINE)
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                entries = self._verdicts.read(self.position, block_s=0.1)
            except BrokerError:
                self._stopping.wait(0.02)
                continue
            self.entries += entries
            if entries:
                self.position = entries[-1][0]

    def stop(self) -> None:
        """No more."""
        self._stopping.set()
        self._thread.join()


class Drill:
    """A topology with a line on it, under load.

    Args:
        waiting: what producers, workers and subscribers ask of the replicas.
    """

    def __init__(self, kind: str, folder: Path, *, waiting: Waiting = NO_WAITING, gap_s: float = 0.03) -> None:
        self._folder = folder
        self._waiting = waiting
        self._gap_s = gap_s
        self._stack = contextlib.ExitStack()
        self._failovers: list[Failover] = []
        try:
            servers = folder / "servers"
            self.topology: Topology = self._stack.enter_context(
                SentinelSet(servers) if kind == "sentinel" else ClusterSet(servers, LINE)
            )
            self._zygote = self._stack.enter_context(Zygote())
            self.client = connect(self.topology.url, timeout_s=2.0, line=LINE)
            Verdicts(self.client, LINE).register(SUBSCRIBER)
            self._reader = Reader(self.topology.url, waiting)
            self._stack.callback(self._reader.stop)
            self._workers = [self._spawn("judge", name, batch_frames=8, trim=True) for name in WORKERS]
            self._subscriber = self._spawn("subscribe", SUBSCRIBER, seed=1)
            self._producers = [self._produce(place, camera) for place, camera in enumerate(CAMERAS)]
            eventually(lambda: len(self._reader.entries) > 20, what="a line that judges")
        except BaseException:
            self._stack.close()
            raise

    def _spawn(self, role: str, name: str, **arguments: Any) -> Process:
        wait = {"wait_replicas": self._waiting.replicas, "wait_timeout_s": self._waiting.timeout_s}
        names = {"url": self.topology.url, "line": LINE, "journal": str(self._folder / f"{name}.{role}")}
        process = self._zygote.spawn(role, name, self._folder / f"{name}.log", **names, **wait, **arguments)
        self._stack.callback(process.close)
        return process

    def _produce(self, place: int, camera: str) -> Process:
        return self._spawn(
            "produce",
            camera,
            camera=camera,
            seed=place,
            first_token=1 + place * MANY,
            frames=MANY,
            message_frames=4,
            frame_bytes=500,
            gap_s=self._gap_s,
            kinds={"GOOD": 0.9, "DEFECT": 0.1},
        )

    def __enter__(self) -> Drill:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def entries(self) -> list[tuple[str, dict[str, Any]]]:
        """Everything that was read of the verdict stream: (entry id, verdict)."""
        return self._reader.entries

    def await_verdicts(self, count: int) -> None:
        """Until so many verdicts were read."""
        eventually(lambda: len(self.entries) >= count, within_s=PATIENCE_S, what=f"{count} verdicts")

    # --- failing over ------------------------------------------------------------------------------------------------
    def fail_over(self, fault: str) -> Failover:
        """Let the line run a while, break its master, and wait until another one is master and all is whole again."""
        threading.Event().wait(LOAD_S)
        old = self.topology.master()
        assert old is not None
        failover = Failover(fault, _now_us())
        self._failovers.append(failover)
        try:
            with contextlib.ExitStack() as stack:
                heal = getattr(self, f"_{fault}")(old, stack)
                eventually(
                    lambda: self.topology.master() not in (None, old),
                    within_s=PATIENCE_S,
                    what=f"a master after {fault}",
                )
                self.await_verdicts(len(self.entries) + 20)
                heal()
            self.topology.restart()
        except AssertionError as error:
            error.add_note(self.state())
            raise
        failover.over_us = _now_us()
        return failover

    def state(self) -> str:
        """Who sees what, for a person who wonders why a drill does not go on."""
        lines = [f"old failovers: {len(self._failovers) - 1}; the reader stands at {self._reader.position}"]
        for node in self.topology.nodes:
            with contextlib.suppress(redis.exceptions.RedisError, OSError):
                told = node.info()
                lines.append(f"{node.address}: {', '.join(f'{name}={told.get(name)}' for name in TOLD)}")
        processes = (*self._workers, *self._producers, self._subscriber)
        lines += [f"{process.name} {'lives' if process.lives else 'has ended'}" for process in processes]
        for process in processes:
            log = self._folder / f"{process.name}.log"
            lines.append(f"{process.name}: {log.read_text('utf-8', 'replace')[-400:] if log.exists() else ''}")
        return "\n".join(lines)

    def _kill(self, old: Node, stack: contextlib.ExitStack) -> Callable[[], None]:
        old.signal(signal.SIGKILL)
        return _nothing

    def _lag(self, old: Node, stack: contextlib.ExitStack) -> Callable[[], None]:
        if isinstance(self.topology, SentinelSet):
            # Replicas that go away are seen, and a master without any takes no writes: these stay, and get nothing.
            self._lossy(old, stack).mute = True
        else:
            assert isinstance(self.topology, ClusterSet)
            self.topology.refuse_replicas(old)
        threading.Event().wait(LAG_S)
        old.signal(signal.SIGKILL)
        self._failovers[-1].at_us = _now_us()
        stack.close()
        return _nothing

    def _lossy(self, old: Node, stack: contextlib.ExitStack) -> Proxy:
        """What stands between the master and its replicas; the line has got over their being led there."""
        assert isinstance(self.topology, SentinelSet)
        proxy = stack.enter_context(self.topology.lossy(old))
        self.await_verdicts(len(self.entries) + 20)
        return proxy

    def _stop(self, old: Node, stack: contextlib.ExitStack) -> Callable[[], None]:
        old.signal(signal.SIGSTOP)
        return lambda: old.signal(signal.SIGCONT)

    def _cut_off(self, old: Node, stack: contextlib.ExitStack) -> Callable[[], None]:
        assert isinstance(self.topology, SentinelSet)
        proxy = self._lossy(old, stack)
        proxy.mute = proxy.deaf = True
        self._failovers[-1].at_us = _now_us()
        return self.topology.lose_sight(old)

    def _switch(self, old: Node, stack: contextlib.ExitStack) -> Callable[[], None]:
        self.topology.switch()
        return _nothing

    # --- the end -----------------------------------------------------------------------------------------------------
    def settle(self) -> Tally:
        """Stop the producers, wait until all is judged and read, and count."""
        for producer in self._producers:
            producer.signal(signal.SIGTERM)
            assert producer.wait(60.0), f"{producer.name} does not end"
        eventually(lambda: self._finished(), within_s=60.0, what="a line with nothing in flight")
        ended = [one.name for one in (*self._workers, self._subscriber) if not one.lives]
        return self._count(ended)

    def _finished(self) -> bool:
        """Nothing is in flight, and the subscriber and our own reader stand at the end of the stream."""
        with contextlib.suppress(BrokerError):
            last = Verdicts(self.client, LINE).last_id()
            done = Verdicts(self.client, LINE).subscribers().get(SUBSCRIBER)
            return self._ledger().in_flight == 0 and last in ("0-0", done) and last in ("0-0", self._reader.position)
        return False

    def _ledger(self) -> Ledger:
        return read_ledger(self.client, LINE)

    def _count(self, ended: list[str]) -> Tally:
        tally = Tally(failovers=self._failovers, wrong=[f"{name} ended by itself" for name in ended])
        offered, told = set[int](), dict[str, tuple[int, int]]()
        for camera in CAMERAS:
            for line in self._journal(camera, "produce"):
                if "offer" in line:
                    offered |= set(range(line["offer"], line["offer"] + len(line["kinds"])))
                elif "told" in line:
                    told |= {name: (line["told"] + place, line["at_us"]) for place, name in enumerate(line["ids"])}
                tally.unreplicated += line.get("unreplicated", 0)
        for name in WORKERS:
            tally.wrong += [line["surprise"] for line in self._journal(name, "judge") if "surprise" in line]
        handed: dict[str, set[str]] = defaultdict(set)
        for line in self._journal(SUBSCRIBER, "subscribe"):
            if "read" in line:
                handed[line["id"]].add(line["read"])
        judged: dict[str, set[str]] = defaultdict(set)
        for entry_id, verdict in self._reader.entries:
            judged[verdict["id"]].add(entry_id)
            token = int(verdict["part"] or 0)
            if token not in offered or told.get(verdict["id"], (token,))[0] != token or verdict["score"] != token:
                tally.wrong.append(f"{verdict['id']} is of frame {token}: {verdict}")
        lost = [name for name in told if name not in handed]
        tally.admitted, tally.lost = len(told), len(lost)
        tally.doubled = len({name for seen in (handed, judged) for name, entries in seen.items() if len(entries) > 1})
        tally.wrong += [f"the ledger does not balance: {row}" for row in self._ledger().rows if not row.balances]
        tally.lost_within_s = max((self._distance_s(told[name][1]) for name in lost), default=0.0)
        times = sorted(from_text(verdict["judged_at"]) for _, verdict in self._reader.entries)
        for failover in self._failovers:
            own = [failover.at_us, *(at for at in times if failover.at_us < at < failover.over_us)]
            gaps = [later - earlier for earlier, later in pairwise(own)]
            failover.silent_s = max(gaps, default=0) / 1e6
        return tally

    def _distance_s(self, told_us: int) -> float:
        """From when a lost frame's producer was told to the nearest fault."""
        return min(abs(told_us - failover.at_us) for failover in self._failovers) / 1e6 if self._failovers else -1.0

    def _journal(self, name: str, role: str) -> Iterator[dict[str, Any]]:
        path = self._folder / f"{name}.{role}"
        if path.exists():
            for line in path.read_bytes().split(b"\n")[:-1]:
                yield json.loads(line)


def _nothing() -> None:
    """What needs no healing but a restart."""


def _now_us() -> int:
    return time.time_ns() // 1000
