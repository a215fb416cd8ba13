"""Stand-ins for the programs that the habits call, each noting how it was called."""

from __future__ import annotations

import os
import subprocess
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
DEADLINE_S = 20.0
FROM_MAKE = {
    "MAKEFLAGS",
    "MFLAGS",
    "MAKEOVERRIDES",
    "MAKELEVEL",
    "PYTHON",
    "DATA",
    "WEIGHTS",
    "BACKBONE",
    "ARGS",
    "VENV",
}
TOOLS = [
    *("awk", "basename", "bash", "cat", "cp", "date", "dirname", "env", "flock", "grep"),
    *("mkdir", "printf", "sed", "sh", "sleep", "tail", "touch", "true"),
]


def told(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command without a terminal, with these variables on top."""
    # A make that runs these tests hands its own options and variables down to every make beneath it.
    kept = {name: value for name, value in os.environ.items() if name not in FROM_MAKE}
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**kept, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def fake_python(folder: Path, name: str, *, fits: bool = True, has_venv: bool = True, pip: str = "exit 0") -> None:
    """A stand-in for an interpreter that notes each of its calls and can make a virtual environment of itself."""
    script = folder / name
    script.write_text(
        textwrap.dedent(f"""\
        #!/bin/sh
        echo "{name} $*" >> "{folder}/calls"
        case "$*" in
            *"version_info < "*) exit {0 if fits else 1} ;;
            *"import venv"*) exit {0 if has_venv else 1} ;;
            *"version_info["*) echo 3.12 ;;
            *"print(sys.version)"*) echo "{name}" ;;
            "--version") echo "Python 3.12.99" ;;
            "-m venv --clear "*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
            "-m pip --version") exit 0 ;;
            "-m pip install "*) {pip} ;;
        esac
        """),
        "utf-8",
    )
    script.chmod(0o755)


def wait_for(condition: Callable[[], T]) -> T:
    """The first true answer of a condition; its last answer after the deadline."""
    until = time.monotonic() + DEADLINE_S
    while not (answer := condition()) and time.monotonic() < until:
        threading.Event().wait(0.01)
    return answer


def calls(folder: Path) -> list[str]:
    file = folder / "calls"
    return file.read_text("utf-8").splitlines() if file.exists() else []
