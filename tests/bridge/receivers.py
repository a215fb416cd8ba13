"""Receivers as processes of their own, that a test kills and starts again on the same port."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bridge.certificates import Authority
from tests.support.repository import ROOT
from tests.support.waiting import eventually


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def listens(port: int) -> bool:
    """Whether somebody does."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def reaches(count: Callable[[], int], least: int) -> None:
    """Wait until there are so many deliveries."""
    eventually(lambda: count() >= least, what=f"{least} deliveries")


@dataclass(slots=True)
class Process:
    """A server's process.

    Attributes:
        command: its words; the same at each start.
    """

    command: list[str]
    port: int
    _running: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self._running = subprocess.Popen(self.command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        eventually(lambda: listens(self.port), what=f"{self.command[0]} on its port")

    def kill(self) -> None:
        """SIGKILL."""
        if self._running is not None:
            self._running.kill()
            self._running.wait(20)
            self._running = None

    def __enter__(self) -> Process:
        self.start()
        return self

    def __exit__(self, *about: object) -> None:
        self.kill()


def http_mes(folder: Path, authority: Authority | None = None) -> Process:
    """The small MES of `mes_http`; with an authority over TLS, for clients that it signed."""
    port = free_port()
    tls: list[str] = []
    if authority is not None:
        pair = authority.pair("server")
        tls = [str(pair.certificate), str(pair.key), str(authority.file)]
    return Process([sys.executable, "-m", "tests.bridge.mes_http", str(port), str(folder), *tls], port)


def taken(folder: Path) -> list[dict[str, Any]]:
    """What that MES has taken: headers and body of each request."""
    file = folder / "taken"
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []
