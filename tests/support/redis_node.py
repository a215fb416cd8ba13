"""One server process of a replicated Redis, that can be killed, stopped and started again."""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import signal
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import redis

from tests.support.waiting import eventually

_PR_SET_PDEATHSIG: Final = 1


def _die_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Secure:
    """Certificates of every server, who show them to each other as their clients do."""

    ca: Path
    cert: Path
    key: Path

    def lines(self, port: int) -> list[str]:
        """What makes a server speak TLS alone."""
        files = [f"tls-ca-cert-file {self.ca}", f"tls-cert-file {self.cert}", f"tls-key-file {self.key}"]
        return ["port 0", f"tls-port {port}", "tls-replication yes", *files]

    def options(self) -> dict[str, Any]:
        """The same for redis-py."""
        names = {"ssl_ca_certs": self.ca, "ssl_certfile": self.cert, "ssl_keyfile": self.key}
        return {"ssl": True, **{name: str(path) for name, path in names.items()}}


class Node:
    """One server process that can be killed, stopped and started again.

    Args:
        conf: its file, copied: Redis writes into it.
        lines: what stands in it besides; the last word counts.
    """

    def __init__(
        self,
        folder: Path,
        port: int,
        conf: Path,
        lines: Iterable[str],
        *,
        sentinel: bool = False,
        secure: Secure | None = None,
        login: Mapping[str, str] | None = None,
    ) -> None:
        self.port = port
        self._login: dict[str, Any] = dict(login or {})
        self._secure = secure
        self.folder = folder
        self._program = shutil.which("redis-server") or "redis-server"
        self._arguments = ["--sentinel"] if sentinel else []
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True)
        speaks = secure.lines(port) if secure else [f"port {port}"]
        own = [*speaks, "bind 127.0.0.1", f"dir {folder}", f"logfile {folder / 'log'}", *lines]
        text = "\n".join(line for line in conf.read_text("utf-8").splitlines() if not line.startswith("sentinel "))
        (folder / "conf").write_text("\n".join([text, *own, ""]), "utf-8")

    @property
    def address(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, where it is not running, and wait until it answers."""
        if self._process is None:
            self._process = subprocess.Popen(
                [self._program, str(self.folder / "conf"), *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                preexec_fn=_die_with_parent,
                start_new_session=True,
            )
        eventually(self.answers, what=f"an answer of {self.address}: {self.folder / 'log'}")

    def signal(self, number: int) -> None:
        """Send it a signal; SIGKILL ends it."""
        if self._process is not None:
            self._process.send_signal(number)
            if number == signal.SIGKILL:
                self._process.wait(20.0)
                self._process = None

    @property
    def up(self) -> bool:
        """It was not killed."""
        return self._process is not None

    def answers(self) -> bool:
        """It answers a PING."""
        with contextlib.suppress(redis.exceptions.RedisError, OSError):
            return bool(self.client().ping())
        return False

    def client(self, **options: Any) -> Any:
        """A plain client of this one server."""
        tls = self._secure.options() if self._secure else {}
        brief: dict[str, Any] = {"socket_timeout": 2.0, "socket_connect_timeout": 2.0}
        return redis.Redis("127.0.0.1", self.port, **brief, **tls, **self._login, **options)

    def info(self) -> dict[str, Any]:
        """INFO replication; empty where it does not answer."""
        with contextlib.suppress(redis.exceptions.RedisError, OSError):
            return dict(self.client().info("replication"))
        return {}
