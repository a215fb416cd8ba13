"""Interpreters of their own for tests of what an installation brings."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

OFFLINE = {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def run(*command: str | Path, cwd: Path, path: Path | None = None) -> str:
    """Run a command to its end and answer what it said; a failure shows it. `path` is one more place of modules."""
    told = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **OFFLINE, **({"PYTHONPATH": str(path)} if path else {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout
    return told.stdout


def interpreter(folder: Path) -> Path:
    """A virtual environment that sees this one's third parties, but not this one's gaussline."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    home = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    # A folder named in a .pth file is searched, but its own .pth files, an editable install's among them, are not read.
    places = [name for name in sys.path if Path(name).name in {"site-packages", "dist-packages"}]
    (home / "third-parties.pth").write_text("".join(f"{name}\n" for name in places), "utf-8")
    return python


def install(python: Path, *what: str | Path) -> None:
    """Install into an interpreter of `interpreter` with the pip and the build tools of this environment, offline."""
    command = (
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--no-deps",
        "--no-build-isolation",
        "--quiet",
    )
    run(*command, *what, cwd=python.parent)
