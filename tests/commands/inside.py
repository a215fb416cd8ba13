"""The command line within the test's own process: for commands that need torch, which a new process loads for long."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from gaussline.worker.commands.main import main
from tests.support.cli import Cli


@dataclass(frozen=True)
class Said:
    """What a command printed."""

    stdout: str
    stderr: str


@dataclass
class Inside:
    """Calls commands as `Cli` does, settings and exit codes included."""

    cli: Cli
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str, code: int = 0, env: dict[str, str] | None = None) -> Said:
        """Run one command; its exit code must be `code`."""
        with self.monkeypatch.context() as patch:
            for name, value in self.cli.settings(**(env or {})).items():
                if name.startswith("GAUSSLINE_") or name == "COLUMNS":
                    patch.setenv(name, value)
            self.capsys.readouterr()
            ended = 0
            try:
                main(list(arguments))
            except SystemExit as end:
                ended = end.code if isinstance(end.code, int) else 0
            said = self.capsys.readouterr()
        assert ended == code, f"{arguments} ended with {ended}: {said.out}{said.err}"
        return Said(said.out, said.err)
