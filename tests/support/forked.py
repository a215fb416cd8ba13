"""Commands in processes of their own that need not load torch again: forked off a server that has loaded it once.

What runs is the command's own entry point, with its own environment, signals, pipes and exit code; only the five
seconds that a fresh interpreter spends on loading the network's library are saved.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from subprocess import TimeoutExpired
from typing import TextIO
from unittest import mock

PRELOAD = (
    "gaussline.worker.commands.main",
    "gaussline.worker.commands.worker",
    "gaussline.worker.engine.host",
    "gaussline.worker.telemetry.logs",
    "gaussline.worker.telemetry.metrics",
    "gaussline.worker.telemetry.server",
)
_context = multiprocessing.get_context("forkserver")


class ForkedCommand:
    """One running command; as much of `subprocess.Popen` as tests ask for.

    Args:
        environment: all of its environment.
    """

    def __init__(self, arguments: tuple[str, ...], environment: Mapping[str, str]) -> None:
        _context.set_forkserver_preload(list(PRELOAD))
        (out, their_out), (err, their_err) = _context.Pipe(duplex=False), _context.Pipe(duplex=False)
        self._process = _context.Process(
            target=_run, args=(arguments, dict(environment), their_out, their_err), daemon=True
        )
        # The server loads its libraries under the environment of the first start: one thread, as every command here.
        with mock.patch.dict(os.environ, {"OMP_NUM_THREADS": "1"}):
            self._process.start()
        self.stdout, self.stderr = _file(out), _file(err)
        their_out.close()
        their_err.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code, minus the signal that killed it, or None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The same."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal; nothing where it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at this very instruction."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; the exit code. Raises TimeoutExpired."""
        self._process.join(timeout)
        if self.returncode is None:
            raise TimeoutExpired("gaussline", timeout or 0.0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it still says on its way to the end."""
        self.wait(timeout)
        said = self.stdout.read(), self.stderr.read()
        self.close()
        return said

    def close(self) -> None:
        """Let go of its pipes."""
        self.stdout.close()
        self.stderr.close()


def _file(end: Connection) -> TextIO:
    file = os.fdopen(os.dup(end.fileno()), "r", encoding="utf-8")
    end.close()
    return file


def _run(arguments: tuple[str, ...], environment: dict[str, str], out: Connection, err: Connection) -> None:
    """In the new process: take its place in the world, then run the command."""
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    out.close()
    err.close()
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), encoding="utf-8")
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", closefd=False), encoding="utf-8", line_buffering=True)
    os.environ.clear()
    os.environ.update(environment)
    from gaussline.worker.commands.main import main

    try:
        main(list(arguments))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
