"""The command line, called as a person calls it, with no settings but those given.

`cli(…)` runs a command to its end in this process, through the same entry point: a process of its own costs up to
five seconds, most of them for loading torch. What a process has to itself (signals, pipes, loaded modules) is tested
with `cli.process(…)` and `cli.start(…)`; `cli.fork(…)` starts what would load torch.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from unittest import mock

from gaussline.worker.commands import console
from gaussline.worker.commands.main import main
from tests.support.forked import ForkedCommand


def environment(**settings: str) -> dict[str, str]:
    """This environment without any GAUSSLINE_ setting, and with the given ones."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("GAUSSLINE_")}
    return plain | {"OMP_NUM_THREADS": "1", "COLUMNS": "120"} | settings


@dataclass(slots=True)
class Cli:
    """A line's command line."""

    url: str
    line: str
    running: list[subprocess.Popen[str] | ForkedCommand] = field(default_factory=list)

    def settings(self, **more: str) -> dict[str, str]:
        """The environment of its commands."""
        return environment(**{"GAUSSLINE_REDIS_URL": self.url, "GAUSSLINE_LINE": self.line, **more})

    def __call__(
        self, *arguments: str, code: int = 0, env: Mapping[str, str] | None = None, **settings: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one command to its end; its exit code must be `code`, and nothing unexpected may be raised."""
        out, err, ended = io.StringIO(), io.StringIO(), 0
        with (
            mock.patch.dict(os.environ, self.settings(**(env or {}), **settings), clear=True),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            for made in (console.out, console.err):
                made.cache_clear()
            try:
                main(list(arguments))
            except SystemExit as exit_:
                ended = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
            finally:
                for made in (console.out, console.err):
                    made.cache_clear()
        return _checked(subprocess.CompletedProcess(arguments, ended, out.getvalue(), err.getvalue()), code)

    def process(self, *arguments: str, code: int = 0, **settings: str) -> subprocess.CompletedProcess[str]:
        """The same in a process of its own."""
        done = subprocess.run(
            [sys.executable, "-m", "gaussline.worker.commands.main", *arguments],
            env=self.settings(**settings),
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return _checked(done, code)

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

    def fork(self, *arguments: str, **settings: str) -> ForkedCommand:
        """Start one command that needs torch, without loading it again; it is ended with the test."""
        process = ForkedCommand(arguments, self.settings(**settings))
        self.running.append(process)
        return process

    def close(self) -> None:
        """End what still runs."""
        for process in self.running:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait(20)
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()


def _checked(done: subprocess.CompletedProcess[str], code: int) -> subprocess.CompletedProcess[str]:
    assert done.returncode == code, f"{done.args} ended with {done.returncode}: {done.stdout}{done.stderr}"
    return done
