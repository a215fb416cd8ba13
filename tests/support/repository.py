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
    """What git tracks or would track."""
    told = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    names = told.stdout.decode().split("\0")
    return sorted(path for name in names if name and (path := ROOT / name).is_file() and not path.is_symlink())
