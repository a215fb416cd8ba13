"""What is checked before a change is taken."""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path

import pytest

from tests.packaging.stand_ins import calls, fake_python, told
from tests.support.repository import ROOT, listed_files

PROGRAMS = "redis-server chromium prometheus amtool systemd-analyze mosquitto openssl"
PACKAGES = "redis-server chromium prometheus prometheus-alertmanager systemd mosquitto openssl"


@pytest.fixture
def checkout(clone: Path, bare: Path) -> Path:
    """A checkout with CI's script, and stand-ins for what it calls; `calls` says in which order and with which CI."""
    (clone / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", clone / ".ci" / "run")
    fake_python(bare, "python3.12")
    note = f'echo "$(basename "$0") $* CI=$CI data=${{GAUSSLINE_TEST_DATA:-none}}" >> "{bare}/calls"'
    for name, then in {
        "make": 'test ! -e "fail-$1"',
        "apt-get": f'case "$*" in *install*) for p in {PROGRAMS}; do cp "$0" "{bare}/$p"; done; esac',
        "service": "exit 1",
        "id": "echo 0",
    }.items():
        (bare / name).write_text(f"#!/bin/sh\n{note}\n{then}\n", "utf-8")
        (bare / name).chmod(0o755)
    return clone


def steps(folder: Path) -> list[str]:
    return [call.split(" CI=")[0] for call in calls(folder) if call.split()[0] in {"make", "apt-get", "service"}]


def test_ci_installs_what_is_missing_stops_its_service_and_runs_both_habits(checkout: Path, bare: Path) -> None:
    result = told(checkout / ".ci" / "run", cwd=bare, PATH=str(bare), CI="", PYTHON="")
    assert result.returncode == 0, result.stderr
    assert steps(bare) == [
        "apt-get update -qq",
        f"apt-get install -y -qq --no-install-recommends {PACKAGES}",
        "service redis-server stop",
        "service prometheus stop",
        "service prometheus-alertmanager stop",
        "service mosquitto stop",
        "make lint",
        "make test",
    ]
    assert all("CI=true" in call for call in calls(bare) if call.startswith("make"))
    (bare / "calls").unlink()
    told(checkout / ".ci" / "run", cwd=bare, PATH=str(bare), PYTHON="")
    assert steps(bare) == ["make lint", "make test"]


@pytest.mark.parametrize("habit", ["lint", "test"])
def test_ci_fails_where_a_habit_does_and_runs_both_all_the_same(checkout: Path, bare: Path, habit: str) -> None:
    (checkout / f"fail-{habit}").touch()
    assert told(checkout / ".ci" / "run", cwd=bare, PATH=str(bare), PYTHON="").returncode != 0
    assert steps(bare)[-2:] == ["make lint", "make test"]


def test_ci_names_the_data_where_it_lies_beside_the_checkout(checkout: Path, bare: Path) -> None:
    (checkout.parent / "shared" / "data").mkdir(parents=True)
    told(checkout / ".ci" / "run", cwd=bare, PATH=str(bare), PYTHON="")
    assert calls(bare)[-1].endswith(f"data={checkout.parent}/shared/data")


def test_ci_gets_a_python_where_there_is_none(checkout: Path, bare: Path) -> None:
    (bare / "python3.12").unlink()
    told(checkout / ".ci" / "run", cwd=bare, PATH=str(bare), PYTHON="")
    assert f"apt-get install -y -qq --no-install-recommends {PACKAGES} python3 python3-venv" in steps(bare)


def test_every_program_that_a_test_asks_for_is_installed_by_ci() -> None:
    table = re.search(r"^programs='\n(.*?)^'", (ROOT / ".ci" / "run").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert table is not None
    installed = {tuple(line.split()[:2]) for line in table[1].splitlines()}
    asked = set()
    for file in listed_files():
        if file.suffix != ".py" or file.relative_to(ROOT).parts[0] != "tests" or file.name == "test_skips.py":
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in {"needs_program", "program"}:
                words = [word.value for word in node.args if isinstance(word, ast.Constant)]
                if words:
                    asked.add(tuple(words))
    assert asked <= installed
