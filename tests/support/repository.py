"""The repository as the tests see it: where it is, what belongs to it, and how its folders map into packages."""

from __future__ import annotations

import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def pyproject() -> dict[str, Any]:
    """pyproject.toml, parsed."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def package_dirs() -> dict[str, Path]:
    """The mapped packages and their folders: gaussline, gaussline.worker, gaussline.producer."""
    folders: dict[str, str] = pyproject()["tool"]["setuptools"]["package-dir"]
    return {package: ROOT / folder for package, folder in folders.items()}


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the package: its dotted name and its file. A package goes by its own name, without `__init__`."""
    mapped = package_dirs()
    for package, folder in sorted(mapped.items()):
        inner = [other for other in mapped.values() if folder in other.parents]
        for file in sorted(folder.rglob("*.py")):
            if any(other in file.parents for other in inner):
                continue
            parts = file.relative_to(folder).with_suffix("").parts
            yield ".".join((package, *(part for part in parts if part != "__init__"))), file


def source_files() -> Iterator[Path]:
    """Every Python file of the repository that git does not ignore: the package, the tests, the benchmarks, scripts."""
    for path in listed_files():
        if path.suffix == ".py" or path == ROOT / "scripts" / "typecheck":
            yield path


def listed_files() -> list[Path]:
    """What git tracks or would track; in a copy without git, everything but what is made here."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        told = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
        paths = [ROOT / name for name in told.stdout.decode().split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        paths = [path for path in ROOT.rglob("*") if not any(map(_is_made, path.relative_to(ROOT).parts))]
    return sorted(path for path in paths if path.is_file() and not path.is_symlink())


def _is_made(name: str) -> bool:
    return name in {"__pycache__", "build", "dist"} or name.endswith(".egg-info") or name.startswith(".")
