"""The command line, called as a person calls it: in a process of its own, with no settings but those given."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field


def environment(**settings: str) -> dict[str, str]:
    """This environment without any GAUSSLINE_ setting, and with the given ones."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("GAUSSLINE_")}
    return plain | {"OMP_NUM_THREADS": "1", "COLUMNS": "120"} | settings


@dataclass(slots=True)
class Cli:
    """A line's command line."""

    url: str
    line: str
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    def settings(self, **more: str) -> dict[str, str]:
        """The environment of its commands."""
        return environment(**{"GAUSSLINE_REDIS_URL": self.url, "GAUSSLINE_LINE": self.line, **more})

    def __call__(
        self, *arguments: str, code: int = 0, env: Mapping[str, str] | None = None, **settings: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one command to its end; its exit code must be `code`, and no traceback may show."""
        done = subprocess.run(
            [sys.executable, "-m", "gaussline.worker.commands.main", *arguments],
            env=self.settings(**(env or {}), **settings),
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == code, f"{arguments} ended with {done.returncode}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def start(self, *arguments: str, **settings: str) -> subprocess.Popen[str]:
        """Start one command; it is ended with the test."""
        process = subprocess.Popen(
            [sys.executable, "-m", "gaussline.worker.commands.main", *arguments],
            env=self.settings(**settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.running.append(process)
        return process

    def close(self) -> None:
        """End what still runs."""
        for process in self.running:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.communicate()
