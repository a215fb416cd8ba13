"""A worker process, as the tests start it and ask it."""

from __future__ import annotations

import json
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.cli import Cli
from tests.support.forked import ForkedCommand
from tests.support.running import running_s

QUICK = {
    "GAUSSLINE_ALLOW_RANDOM_WEIGHTS": "true",
    "GAUSSLINE_HTTP_PORT": "0",
    "GAUSSLINE_BATCH_MAX_FRAMES": "4",
    "GAUSSLINE_MEMORY_FORMAT": "channels_last",
}
"""Settings of a worker with a model of random weights, and no probe of what is fastest."""


@dataclass
class WorkerProcess:
    """One worker. Its log is read in a thread, so that it never blocks on a full pipe."""

    process: subprocess.Popen[str] | ForkedCommand
    log: list[dict[str, Any]] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    _came: threading.Condition = field(default_factory=threading.Condition)

    def read(self) -> None:
        """Read the log to its end."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._came:
                if line.startswith("{"):
                    self.log.append(json.loads(line))
                else:
                    self.other.append(line)
                self._came.notify_all()

    def says(self, event: str, within_s: float = 60.0) -> dict[str, Any]:
        """The first line of an event, waited for."""

        def found() -> dict[str, Any] | None:
            return next((line for line in self.log if line["event"] == event), None)

        end = running_s() + within_s
        with self._came:
            while (line := found()) is None:
                assert running_s() < end, f"no {event!r} in {self.log} {self.other}"
                self._came.wait(0.5)
        return line

    def get(self, path: str, timeout_s: float = 5.0) -> tuple[int, str]:
        """Status and body of an HTTP answer."""
        url = f"http://127.0.0.1:{self.says('started')['http_port']}{path}"
        try:
            with urllib.request.urlopen(url, timeout=timeout_s) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        """Sum of a metric's samples that have these labels."""
        total = 0.0
        for line in self.get("/metrics")[1].splitlines():
            if line.startswith(f"{name}{{") and all(f'{key}="{value}"' in line for key, value in labels.items()):
                total += float(line.rsplit(" ", 1)[1])
        return total

    def end(self, number: int, within_s: float = 40.0) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(within_s)


def start_worker(
    cli: Cli,
    *arguments: str,
    ready: bool = True,
    fresh: bool = False,
    env: Mapping[str, str] | None = None,
    **settings: str,
) -> WorkerProcess:
    """A worker of the line, ended with the test; in a `fresh` interpreter, or forked off one that has torch loaded."""
    start = cli.start if fresh else cli.fork
    worker = WorkerProcess(start("worker", *arguments, **QUICK | dict(env or {}) | settings))
    threading.Thread(target=worker.read, daemon=True).start()
    if ready:
        worker.says("ready")
    return worker
