"""The commands a newcomer types."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.packaging.stand_ins import told
from tests.support.repository import ROOT


@pytest.fixture
def ready(clone: Path) -> Path:
    """A clone whose environment is up to date and whose programs say how they were called."""
    folder = clone / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("gaussline", "pytest", "ruff", "shellcheck", "python"):
        (folder / name).write_text(f'#!/bin/sh\nprintf "%s|" {name} "$@"; echo\n', "utf-8")
        (folder / name).chmod(0o755)
    (clone / ".venv" / ".stamp").write_text(f"{clone}\n", "utf-8")
    return clone


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], "gaussline|demo|"),
        (["DATA=my images"], "gaussline|demo|--data|my images|"),
        (["BACKBONE=resnet18"], "gaussline|demo|--backbone|resnet18|"),
        (
            ["DATA=a", "WEIGHTS=w.pth", "BACKBONE=b", "ARGS=--frames 10"],
            "gaussline|demo|--data|a|--weights|w.pth|--backbone|b|--frames|10|",
        ),
    ],
)
def test_make_demo_passes_on_what_was_given(ready: Path, given: list[str], expected: str) -> None:
    result = told("make", "demo", *given, cwd=ready)
    assert result.stdout.strip() == expected, result.stderr


def test_make_bench_passes_on_what_was_given(ready: Path) -> None:
    result = told("make", "bench", "WEIGHTS=w.pth", "ARGS=--rounds 1", cwd=ready)
    assert result.stdout.strip() == "python|-m|bench.pipeline|--weights|w.pth|--rounds|1|", result.stderr


def test_make_faults_passes_on_what_was_given(ready: Path) -> None:
    result = told("make", "faults", "SEED=7", "EPISODES=500", "ARGS=--lanes 2", cwd=ready)
    assert result.stdout.strip() == "python|-m|tests.faults|--seed|7|--episodes|500|--lanes|2|", result.stderr


def test_make_test_runs_pytest_and_answers_with_its_status(ready: Path) -> None:
    assert told("make", "test", "ARGS=-k name", cwd=ready).stdout.startswith("pytest|")
    (ready / ".venv" / "bin" / "pytest").write_text("#!/bin/sh\nexit 1\n", "utf-8")
    assert told("make", "test", cwd=ready).returncode != 0


@pytest.mark.parametrize("broken", ["ruff", "shellcheck", "python"])
def test_make_lint_fails_where_one_of_its_checks_does(ready: Path, broken: str) -> None:
    assert told("make", "lint", cwd=ready).returncode == 0
    (ready / ".venv" / "bin" / broken).write_text("#!/bin/sh\nexit 1\n", "utf-8")
    assert told("make", "lint", cwd=ready).returncode != 0


def test_help_names_every_target(ready: Path) -> None:
    targets = re.findall(r"^\.PHONY: (\S+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    shown = told("make", cwd=ready).stdout
    assert len(targets) >= 5
    assert [name for name in targets if f"make {name}" not in shown] == []


def test_the_type_check_sees_the_folders_as_the_package(tmp_path: Path) -> None:
    for name, text in {
        "pyproject.toml": '[tool.setuptools.package-dir]\ngaussline = "worker/facade"\n'
        '"gaussline.worker" = "worker"\n"gaussline.producer" = "producer"\n[tool.mypy]\nstrict = true\n',
        "worker/facade/__init__.py": "from gaussline.producer import size as size\n",
        "worker/facade/py.typed": "",
        "worker/__init__.py": "",
        "worker/good.py": "def half(x: float) -> float:\n    return x / 2\n",
        "worker/bad.py": "from gaussline.worker.good import half\n\nhalf('x')\n",
        "producer/__init__.py": "size: int = 3\n",
        "tests/test_a.py": "import gaussline\n\ntext: str = gaussline.size\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "typecheck", tmp_path / "scripts" / "typecheck")
    check = (sys.executable, tmp_path / "scripts" / "typecheck")
    result = told(*check, cwd=tmp_path)
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    assert any(line.startswith("worker/bad.py:3: error: Argument 1 to") for line in lines), result.stdout
    assert any(line.startswith("tests/test_a.py:3: error: Incompatible types") for line in lines), result.stdout
    assert lines[-1].startswith("Found 2 errors")
    (tmp_path / "worker" / "bad.py").unlink()
    (tmp_path / "tests" / "test_a.py").unlink()
    result = told(*check, cwd=tmp_path)
    assert result.returncode == 0, result.stdout
