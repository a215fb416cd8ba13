"""A gaussline command in a process of its own, that cannot outlive the one that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

from gaussline.worker.errors import GausslineError

END_S = 15.0
"""Time a process has to end when it is asked to; then it is killed."""
_PR_SET_PDEATHSIG = 1


class Child:
    """One process, ended at the end of the `with`, however that comes.

    Its standard error is ours, so that what it complains of is seen; its standard output goes nowhere.
    Should we be killed outright, Linux kills it too: workers and producers hold nothing that matters.
    """

    def __init__(self, name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
        parent = os.getpid()

        def die_with_parent() -> None:
            if libc is not None:
                libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() != parent:
                    os._exit(1)

        self._process = subprocess.Popen(
            [sys.executable, "-m", "gaussline.worker.commands.main", *arguments],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C at the terminal is for us, who then end the processes in their order
            preexec_fn=die_with_parent,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit code, minus the signal that killed it; None while it runs."""
        return self._process.poll()

    def signal(self, number: int) -> None:
        """Send it a signal; nothing where it has ended."""
        self._process.send_signal(number)

    def on_end(self, call: Callable[[], None]) -> None:
        """Call this once when it has ended, from a thread of its own."""

        def wait() -> None:
            self._process.wait()
            call()

        threading.Thread(target=wait, name=f"end of {self.name}", daemon=True).start()

    @property
    def running(self) -> bool:
        """It has not ended."""
        return self._process.poll() is None

    @property
    def failed(self) -> bool:
        """It ended, and not well."""
        return self._process.poll() not in (None, 0)

    def check(self) -> None:
        """Raises GausslineError where it has failed; it has said itself why."""
        if self.failed:
            raise GausslineError(f"the {self.name} ended with code {self._process.returncode}: see its message above")

    def wait(self, timeout_s: float) -> None:
        """Wait for its end. Raises GausslineError where it does not come in time, or not well."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise GausslineError(f"the {self.name} did not end within {timeout_s:.0f} s") from None
        self.check()

    def end(self) -> None:
        """Ask it to end, as a service manager does, and kill it where it takes too long."""
        if self.running:
            self._process.terminate()
            try:
                self._process.wait(END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
