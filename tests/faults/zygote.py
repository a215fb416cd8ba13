"""Processes in milliseconds: one process imports everything once and forks what is asked for.

The forked ones are killed, stopped and waited for through their pidfd, so that a number that was given to another
process meanwhile is never hit.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

_PR_SET_PDEATHSIG = 1
START_S = 60.0
ROOT = Path(__file__).resolve().parents[2]


class Process:
    """One forked process."""

    def __init__(self, pid: int, name: str, log: Path) -> None:
        self.pid = pid
        self.name = name
        self.log = log
        self._pidfd = os.pidfd_open(pid)

    def signal(self, number: int) -> bool:
        """Send a signal; False where the process has ended."""
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            return False
        return True

    def wait(self, within_s: float) -> bool:
        """True where it ends in time."""
        return bool(select.select([self._pidfd], [], [], within_s)[0])

    @property
    def lives(self) -> bool:
        """It has not ended."""
        return not self.wait(0.0)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        assert self.wait(20.0), f"{self.name} outlives SIGKILL"

    def close(self) -> None:
        """Kill it, and forget it."""
        self.kill()
        os.close(self._pidfd)


class Zygote:
    """Forks processes that run one of `roles.ROLES`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )

    def spawn(self, role: str, name: str, log: Path, **arguments: Any) -> Process:
        """Start a role; its standard error goes to `log`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = json.dumps({"role": role, "log": str(log), "arguments": {"name": name, **arguments}})
        with self._lock:
            self._process.stdin.write(order.encode() + b"\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        assert answer, "the zygote has ended; its standard error says why"
        return Process(int(answer), name, log)

    def __enter__(self) -> Zygote:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(20.0)
        self._process.stdout.close()


def _die_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _run(role: Callable[..., None], order: dict[str, Any]) -> None:
    """Body of a forked process; never returns."""
    code = 1
    try:
        _die_with_parent()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log = os.open(order["log"], os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.dup2(log, 2)
        role(**order["arguments"])
        code = 0
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        os._exit(code)


def main() -> None:
    """Fork for every order, until there are no more."""
    from tests.faults.roles import ROLES

    _die_with_parent()
    # Children that end are forgotten at once; who started them asks through a pidfd.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _run(ROLES[order["role"]], order)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
