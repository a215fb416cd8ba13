"""The stage of one episode: a server that several share, the processes, the proxy, and the eyes of the checker."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from redis.exceptions import RedisError

from gaussline.worker.broker.admission import Admission
from gaussline.worker.broker.client import connect, time_us
from gaussline.worker.broker.heartbeat import Heartbeat
from gaussline.worker.broker.ledger import Ledger, read_ledger
from gaussline.worker.broker.verdicts import PartVerdicts, Verdicts
from gaussline.worker.contract.frame import frame_id
from gaussline.worker.contract.keys import Keys
from gaussline.worker.errors import BrokerError, BrokerUnavailable, NotFound
from tests.faults.plan import LOAD_S, Plan
from tests.faults.power_cut import WINDOW_S
from tests.faults.roles import SLOW_CLAIM_AFTER_S
from tests.faults.server import Server
from tests.faults.zygote import Process, Zygote
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

CHECKER: Final = "checker"
"""Name by which the checker subscribes."""
SUBSCRIBER: Final = "mes"
PARTS: Final = "parts"
"""The part judge, and its cursor."""
_TIMEOUT_S: Final = 2.0


class Collector:
    """Reads the verdict stream as a subscriber does, beside everything that happens, and forgets nothing."""

    def __init__(self, url: str, line: str) -> None:
        self.entries: list[tuple[str, dict[str, Any]]] = []
        self.position = "0-0"
        self._stopping = threading.Event()
        self._verdicts = Verdicts(connect(url, timeout_s=_TIMEOUT_S), line)
        self._verdicts.register(CHECKER)
        self._thread = threading.Thread(target=self._run, name="collector", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                entries = self._verdicts.read(self.position, block_s=0.05)
                if entries:
                    self.entries += entries
                    self.position = entries[-1][0]
                self._verdicts.ack(CHECKER, self.position)
            except NotFound:  # a power cut took the registration
                self._register()
            except BrokerError:
                self._stopping.wait(0.02)

    def _register(self) -> None:
        with contextlib.suppress(BrokerError):
            self._verdicts.register(CHECKER)

    def stop(self) -> None:
        """No more."""
        self._stopping.set()
        self._thread.join()


class Stage:
    """Everything that one episode moves.

    Args:
        broken_as: which broken worker judges; none is the product's own.
    """

    def __init__(self, server: Server, zygote: Zygote, plan: Plan, folder: Path, broken_as: str = "") -> None:
        self.server = server
        self.plan = plan
        self.line = f"e{plan.seed}"
        self.keys = Keys(self.line)
        self.client = connect(server.redis.url, timeout_s=_TIMEOUT_S)
        self._zygote = zygote
        self._folder = folder
        self._broken_as = broken_as
        self._serial = 0
        self._names: dict[str, str] = {}
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._wipe()
        self._proxy_context = contextlib.ExitStack()
        self.proxy = (
            self._proxy_context.enter_context(Proxy(server.redis.url.removeprefix("unix://"))) if plan.proxied else None
        )
        self.url = self.proxy.url if self.proxy else server.redis.url
        if server.redis.appendfsync == "everysec":
            self._grow_old()
        self.collector = Collector(server.redis.url, self.line)
        Verdicts(self.client, self.line).register(SUBSCRIBER)
        self._cuts_before = len(server.cuts_us)
        self.kills: list[tuple[int, frozenset[str]]] = []
        self.restarts: list[int] = []
        self.crashes: list[str] = []
        self.ended: list[Process] = []
        """Processes that were killed on purpose, or had ended before they were looked for."""
        self.workers = [self.spawn_worker(first=number == 0) for number in range(plan.workers)]
        self.subscriber = self.spawn_subscriber()
        self.parts = self.spawn_parts()
        # A part judge that is new begins with what comes next: it must be there before the first verdict.
        eventually(lambda: self.cursor(PARTS) is not None, what="the part judge among the subscribers")
        self.producers: list[Process | None] = [self.spawn_producer(camera) for camera in range(plan.cameras)]

    def _grow_old(self) -> None:
        """A line that has been there for a while: no power cut can take its cameras, or that it ever had a worker."""
        for camera in range(self.plan.cameras):
            budgets = {"camera_budget_bytes": 1, "line_budget_bytes": 1}
            Admission(self.client, self.line, f"cam{camera}", **budgets).open()
        Heartbeat(self.client, self.line, "before").beat()
        threading.Event().wait(WINDOW_S)

    # --- processes ---------------------------------------------------------------------------------------------------
    def _spawn(self, role: str, name: str, **arguments: Any) -> Process:
        journal = str(self._folder / f"{name}.{role}")
        log = self._folder / f"{name}.log"
        return self._zygote.spawn(role, name, log, url=self.url, line=self.line, journal=journal, **arguments)

    def spawn_worker(self, *, first: bool = False, after: Process | None = None) -> Process:
        """One more worker: under a new name, or under that of one which has ended. A process is named by its life."""
        self._serial += 1
        life = f"w{self._serial}"
        self._names[life] = life if after is None else self._names[after.name]
        slow = {"slow_batches": self.plan.slow_batches, "slow_s": 1.5 * SLOW_CLAIM_AFTER_S} if first else {}
        return self._spawn(
            "judge",
            life,
            worker_name=self._names[life],
            trim=self.plan.trim,
            broken_as=self._broken_as,
            batch_frames=self.plan.batch_frames,
            batch_s=self.plan.batch_s,
            **slow,
        )

    def spawn_subscriber(self) -> Process:
        """The subscriber, again under its name."""
        return self._spawn("subscribe", SUBSCRIBER, seed=self.plan.seed, act_s=0.01)

    def spawn_parts(self) -> Process:
        """The part judge."""
        return self._spawn("parts", PARTS)

    def spawn_producer(self, camera: int) -> Process:
        """A camera's producer, which goes on behind the last frame that was offered."""
        name = f"cam{camera}"
        first = 1 + camera * self.plan.frames
        offered = [line["offer"] + len(line["kinds"]) for line in self.journal(name, "produce") if "offer" in line]
        begin = max(offered, default=first)
        messages = max(1.0, self.plan.frames / ((1 + self.plan.message_frames) / 2))
        return self._spawn(
            "produce",
            name,
            camera=name,
            seed=self.plan.seed * 100 + camera + begin,
            first_token=begin,
            frames=first + self.plan.frames - begin,
            message_frames=self.plan.message_frames,
            frame_bytes=self.plan.frame_bytes,
            gap_s=LOAD_S / messages,
            kinds=dict(self.plan.kinds),
            clock_jumps_s=self.plan.clock_jumps_s,
        )

    def journal(self, name: str, role: str) -> Iterator[dict[str, Any]]:
        """What a process wrote down, a torn last line left out."""
        path = self._folder / f"{name}.{role}"
        if path.exists():
            for line in path.read_bytes().split(b"\n")[:-1]:
                yield json.loads(line)

    def journals(self, role: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """What all processes of a role wrote down: (name, line)."""
        for path in sorted(self._folder.glob(f"*.{role}")):
            for line in self.journal(path.stem, role):
                yield path.stem, line

    def logs(self) -> str:
        """What the processes said on their standard error."""
        files = sorted(self._folder.glob("*.log"))
        return "\n".join(f"--- {file.stem}\n{text[-2000:]}" for file in files if (text := file.read_text("utf-8")))

    @property
    def processes(self) -> list[Process]:
        """All that should live."""
        return [*self.workers, self.subscriber, self.parts, *(one for one in self.producers if one is not None)]

    def part_verdicts(self) -> list[tuple[str, dict[str, Any]]]:
        """Every part verdict."""
        return PartVerdicts(self.client, self.line).read("0-0", count=100_000)

    def open_parts(self) -> int | None:
        """Parts that are not decided, None where Redis does not answer."""
        with contextlib.suppress(RedisError, OSError):
            return int(self.client.hlen(self.keys.parts_open))
        return None

    # --- undoing -----------------------------------------------------------------------------------------------------
    def refill(self) -> None:
        """As many workers as the plan says."""
        while len(self.workers) < self.plan.workers:
            self.workers.append(self.spawn_worker())

    def restart_redis(self) -> None:
        """Start it again, and see how soon a verdict comes."""
        if not self.server.up:
            self.server.start()
            self._note_restart()

    def free_memory(self) -> None:
        """No maxmemory any more."""
        with contextlib.suppress(RedisError, OSError):
            self.client.config_set("maxmemory", 0)

    def free_disk(self) -> None:
        """There is room again."""
        self.server.free_disk()

    def heal(self) -> None:
        """Undo whatever is left of any fault."""
        self.server.signal(signal.SIGCONT)
        self.server.free_disk()
        self.free_memory()
        if self.proxy is not None:
            self.proxy.heal()
        for process in self.processes:
            process.signal(signal.SIGCONT)
        for camera, producer in enumerate(self.producers):
            if producer is None:
                self.producers[camera] = self.spawn_producer(camera)
        self.refill()
        if not self.parts.lives:
            self.ended.append(self.parts)
            self.parts = self.spawn_parts()

    # --- timing ------------------------------------------------------------------------------------------------------
    def note_kill(self, worker: Process) -> None:
        """Remember which frames a worker holds that is about to be killed, so that their recovery can be timed."""
        held: set[str] = set()
        with contextlib.suppress(RedisError, OSError, BrokerError):
            for camera in (f"cam{number}" for number in range(self.plan.cameras)):
                mine = self.client.xpending_range(self.keys.frames(camera), "workers", "-", "+", 1000, worker.name)
                for entry in mine:
                    meta = self.client.hget(self.keys.index(camera), entry["message_id"])
                    if meta is not None:
                        frames, first, epoch, *_ = (int(part) for part in meta.split(b":"))
                        held |= {frame_id(camera, epoch, first + offset) for offset in range(frames)}
            self.kills.append((time_us(self.client), frozenset(held)))

    def _note_restart(self) -> None:
        """Remember when Redis was ready again, where frames were waiting for it."""
        with contextlib.suppress(RedisError, OSError, BrokerError):
            ready_us = time_us(self.client)
            if read_ledger(self.client, self.line).in_flight:
                self.restarts.append(ready_us)

    @property
    def cuts_us(self) -> list[int]:
        """When the server's machine lost its power, by our clock."""
        return self.server.cuts_us[self._cuts_before :]

    # --- looking -----------------------------------------------------------------------------------------------------
    def ledger(self) -> Ledger | None:
        """The ledger now, None where Redis does not answer."""
        try:
            return read_ledger(self.client, self.line)
        except BrokerUnavailable:
            return None

    def last_verdict(self) -> str | None:
        """The stream's last entry id that ever was, None where Redis does not answer."""
        with contextlib.suppress(RedisError, OSError):
            if not self.client.exists(self.keys.verdicts):
                return "0-0"
            return bytes(self.client.xinfo_stream(self.keys.verdicts)["last-generated-id"]).decode()
        return None

    def cursor(self, subscriber: str) -> str | None:
        """How far a subscriber has acknowledged."""
        with contextlib.suppress(BrokerError):
            return Verdicts(self.client, self.line).subscribers().get(subscriber)
        return None

    def replace_dead(self) -> None:
        """Write down whoever ended though nobody ended it, and start another in its place."""
        for worker in [worker for worker in self.workers if not worker.lives]:
            self.workers.remove(worker)
            self.ended.append(worker)
            self.crashes.append(f"{worker.name} ended by itself")
        self.refill()
        for camera, producer in enumerate(self.producers):
            if producer is None or producer.lives:
                continue
            if not any("done" in line for line in self.journal(f"cam{camera}", "produce")):
                self.ended.append(producer)
                self.crashes.append(f"{producer.name} ended by itself")
                self.producers[camera] = self.spawn_producer(camera)
        if not self.subscriber.lives:
            self.crashes.append("the subscriber ended by itself")
            self.ended.append(self.subscriber)
            self.subscriber = self.spawn_subscriber()

        if not self.parts.lives:
            self.crashes.append("the part judge ended by itself")
            self.ended.append(self.parts)
            self.parts = self.spawn_parts()

    # --- the end -----------------------------------------------------------------------------------------------------
    def _wipe(self) -> None:
        for key in list(self.client.scan_iter(f"gl:\\{{{self.line}\\}}:*", count=1000)):
            self.client.unlink(key)

    def close(self) -> None:
        """End every process and forget the line."""
        for process in [*self.processes, *self.ended]:
            process.close()
        self.collector.stop()
        self._proxy_context.close()
        with contextlib.suppress(Exception):
            self._wipe()
        self.client.close()
