"""`gaussline worker --devices`: one worker process for each device, started again when it ends, ended together."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from signal import SIGKILL, Signals
from typing import Protocol

from gaussline.worker.commands.child import Child
from gaussline.worker.commands.signals import on_signals
from gaussline.worker.commands.units import MORE_WORKERS_PORT
from gaussline.worker.errors import SettingsError
from gaussline.worker.settings import PREFIX, Settings

BACKOFF_S = (1.0, 30.0)
"""First and longest pause before a worker is started again."""
STEADY_S = 60.0
"""A worker that ran so long has recovered: its next pause is the first one again."""
GRACE_S = 10.0
"""Time beyond the drain time after which a worker that was told to end is killed."""
MORE_WORKERS = MORE_WORKERS_PORT - int(Settings.model_fields["http_port"].default)
"""From the port of the first worker to that of the second, as systemd's units have them."""
WRONG_SETTINGS = 2
"""The exit code that starting again does not heal."""


class Process(Protocol):
    """What a supervisor needs of a process; `Child` is the one."""

    @property
    def pid(self) -> int:
        """Its process id."""

    @property
    def code(self) -> int | None:
        """Its exit code (minus the signal that killed it), None while it runs."""

    def signal(self, number: int) -> None:
        """Send it a signal; nothing where it has ended."""

    def on_end(self, call: Callable[[], None]) -> None:
        """Call this once when it has ended, from a thread."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One worker that is to run: its device, its name and its port (0 for a free one)."""

    device: str
    name: str
    port: int


@dataclass(slots=True)
class _Running:
    slot: Slot
    process: Process | None = None
    began_s: float = 0.0
    due_s: float = 0.0
    pause_s: float = BACKOFF_S[0]


def devices_of(text: str, cuda_devices: Callable[[], int]) -> list[str]:
    """The devices that a text names: `all` GPUs, or a list such as cuda:0,cuda:1 or cpu,cpu. Raises SettingsError."""
    if text == "all":
        count = cuda_devices()
        if count == 0:
            raise SettingsError("--devices all: no CUDA device is visible here; name devices, such as --devices cpu")
        return [f"cuda:{number}" for number in range(count)]
    devices = [device.strip() for device in text.split(",")]
    if not all(devices):
        raise SettingsError(f"--devices {text!r}: 'all', or devices with commas between, such as cuda:0,cuda:1")
    return devices


def slots_of(devices: Sequence[str], settings: Settings) -> list[Slot]:
    """A worker for each device: names that tell them apart, and ports.

    The first has http_port, further ones those of a machine's further workers: what follows on 9108 is the exporter's.
    """
    base = settings.worker_name or socket.gethostname()
    first = settings.http_port
    return [
        Slot(
            device,
            f"{base[:48]}-{number}-{device.replace(':', '')}",
            first + MORE_WORKERS + number - 1 if first and number else first,
        )
        for number, device in enumerate(devices)
    ]


def environment_of(slot: Slot, among: int, settings: Settings, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of one worker; on a CPU they share the cores."""
    own = {"DEVICE": slot.device, "WORKER_NAME": slot.name, "HTTP_PORT": str(slot.port)}
    if slot.device == "cpu" and settings.torch_threads is None:
        own["TORCH_THREADS"] = str(max(1, (os.cpu_count() or 1) // among))
    return dict(environment) | {PREFIX + name: value for name, value in own.items()}


class Supervisor:
    """Keeps one process running for each slot, until `stop`.

    `step` must be called from the main thread: Linux ends a child with the thread that started it.

    Args:
        start: starts the worker of a slot.
        drain_s: time that workers may take to end.
        monotonic: seconds, on any clock that never goes back.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        start: Callable[[Slot], Process],
        *,
        drain_s: float,
        logger: logging.Logger,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._all = [_Running(slot) for slot in slots]
        self._start = start
        self._drain_s = drain_s
        self._log = logger
        self._monotonic = monotonic
        self._changed = threading.Event()
        self._signals: list[Signals] = []
        self._told = 0
        self._kill_s: float | None = None
        self._codes: list[int] = []

    def stop(self, number: Signals) -> None:
        """Hand a signal on to every worker; the first one ends the supervision. From any thread."""
        self._signals.append(number)
        self._changed.set()

    def run(self) -> int:
        """Supervise until told to stop and every worker has ended; the exit code."""
        while True:
            wait_s = self.step()
            if wait_s is None:
                return max(self._codes, default=0)
            self._changed.wait(wait_s)
            self._changed.clear()

    def step(self) -> float | None:
        """Look at every worker once; seconds until there is something to do, None where all is over."""
        now_s = self._monotonic()
        self._hand_on(now_s)
        for each in self._all:
            self._look(each, now_s)
        if self._told or self._kill_s is not None:
            running = [each for each in self._all if each.process is not None]
            if not running:
                return None
            assert self._kill_s is not None
            if now_s >= self._kill_s:
                for each in running:
                    assert each.process is not None
                    self._log.warning("worker killed", extra=self._facts(each))
                    each.process.signal(SIGKILL)
                return 1.0
            return max(0.0, self._kill_s - now_s)
        due = [each.due_s for each in self._all if each.process is None]
        return max(0.0, min(due) - now_s) if due else STEADY_S

    # --- inside ------------------------------------------------------------------------------------------------------
    def _hand_on(self, now_s: float) -> None:
        for number in self._signals[self._told :]:
            self._told += 1
            self._end(number, now_s)

    def _end(self, number: int, now_s: float) -> None:
        if self._kill_s is None:
            self._kill_s = now_s + self._drain_s + GRACE_S
        for each in self._all:
            if each.process is not None:
                each.process.signal(number)

    def _look(self, each: _Running, now_s: float) -> None:
        if each.process is None:
            if self._kill_s is None and now_s >= each.due_s:
                each.process, each.began_s = self._start(each.slot), now_s
                each.process.on_end(self._changed.set)
                self._log.info("worker started", extra=self._facts(each))
            return
        code = each.process.code
        if code is None:
            return
        facts = self._facts(each) | {"code": code}
        each.process = None
        if self._kill_s is not None:
            self._codes.append(_exit_code(code))
            self._log.info("worker ended", extra=facts)
        elif code == WRONG_SETTINGS:
            # It has said itself what is wrong, and it would say so again.
            self._codes.append(code)
            self._log.error("worker refused its settings: ending all", extra=facts)
            self._end(Signals.SIGTERM, now_s)
        else:
            each.pause_s = BACKOFF_S[0] if now_s - each.began_s >= STEADY_S else each.pause_s
            each.due_s = now_s + each.pause_s
            self._log.warning("worker ended: starting it again", extra=facts | {"in_s": each.pause_s})
            each.pause_s = min(2.0 * each.pause_s, BACKOFF_S[1])

    def _facts(self, each: _Running) -> dict[str, object]:
        assert each.process is not None
        return {"worker": each.slot.name, "device": each.slot.device, "worker_pid": each.process.pid}


def _exit_code(code: int) -> int:
    """As a shell tells it: 128 and the number of the signal that killed it."""
    return 128 - code if code < 0 else code


def supervise(
    devices: str, settings: Settings, options: Mapping[str, object], connect_for_s: float, logger: logging.Logger
) -> int:
    """Run one worker for each device until SIGTERM or Ctrl-C; the exit code. Raises SettingsError.

    Args:
        options: what was given on the command line, by setting; handed on in the environment, where nobody else reads.
        connect_for_s: how long each worker waits for a Redis that is not there yet.
    """

    def cuda_devices() -> int:
        import torch

        return int(torch.cuda.device_count())

    slots = slots_of(devices_of(devices, cuda_devices), settings)
    given = {PREFIX + name.upper(): str(value) for name, value in options.items() if value is not None}
    environment = dict(os.environ) | given

    def start(slot: Slot) -> Process:
        own = environment_of(slot, len(slots), settings, environment)
        return Child(slot.name, ["worker", "--connect-for", f"{connect_for_s:g}"], own)

    supervisor = Supervisor(slots, start, drain_s=settings.drain_s, logger=logger)
    with on_signals(supervisor.stop, supervisor.stop):
        return supervisor.run()
