"""The commands a newcomer types: `make`, the environment beneath it, the type check, and what CI installs."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.repository import ROOT, listed_files

TOOLS = [
    *("awk", "basename", "bash", "cat", "cp", "date", "dirname", "env", "flock", "grep"),
    *("mkdir", "printf", "sed", "sh", "sleep", "tail", "touch", "true"),
]


def told(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command without a terminal, with these variables on top."""
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The files that make reads, in a folder of their own."""
    copy = tmp_path / "a clone"
    (copy / "scripts").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "scripts/environment"):
        shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A PATH with the small programs of every Linux, and no Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        assert found, name
        (folder / name).symlink_to(found)
    return folder


def fake_python(folder: Path, name: str, *, fits: bool = True, has_venv: bool = True, pip_works: bool = True) -> None:
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
            "--version") echo "Python 3.12.99" ;;
            "-m venv --clear "*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
            "-m pip --version") exit 0 ;;
            "-m pip install "*) {"exit 0" if pip_works else 'echo "ERROR: no torch"; exit 7'} ;;
        esac
        """),
        "utf-8",
    )
    script.chmod(0o755)


def calls(folder: Path) -> list[str]:
    file = folder / "calls"
    return file.read_text("utf-8").splitlines() if file.exists() else []


def environment(clone: Path, path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return told(clone / "scripts" / "environment", ".venv", cwd=clone, PATH=str(path), **{"PYTHON": "", **variables})


def test_the_environment_is_made_once(clone: Path, bare: Path) -> None:
    fake_python(bare, "python3.12")
    first = environment(clone, bare)
    assert first.returncode == 0, first.stderr
    assert "installing gaussline" in first.stderr
    assert "ready after" in first.stderr
    assert any("-m pip install" in call and ".[dev]" in call for call in calls(bare))
    before = calls(bare)
    second = environment(clone, bare)
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert calls(bare) == before


def test_a_changed_project_file_is_installed_again_into_the_same_environment(clone: Path, bare: Path) -> None:
    fake_python(bare, "python3.12")
    environment(clone, bare)
    stamp = clone / ".venv" / ".stamp"
    os.utime(stamp, (1, 1))
    again = environment(clone, bare)
    assert "installing" in again.stderr
    assert len([call for call in calls(bare) if "-m venv" in call]) == 1
    assert len([call for call in calls(bare) if "-m pip install" in call]) == 2


def test_the_newest_known_python_that_runs_is_taken(clone: Path, bare: Path) -> None:
    fake_python(
        bare, "python3.12", fits=False
    )  # what a version manager leaves on PATH for a version that is switched off
    fake_python(bare, "python3.11")
    fake_python(bare, "python3")
    assert "/python3.11)" in environment(clone, bare).stderr


def test_python_overrides(clone: Path, bare: Path) -> None:
    fake_python(bare, "python3.12")
    fake_python(bare, "python3.13")
    assert "/python3.13)" in environment(clone, bare, PYTHON="python3.13").stderr


def test_without_a_python_it_says_what_to_install(clone: Path, bare: Path) -> None:
    result = environment(clone, bare)
    assert result.returncode == 1
    assert "no Python 3.11 or newer" in result.stderr
    assert "apt-get install python3.11 python3.11-venv" in result.stderr
    assert not (clone / ".venv").exists()


@pytest.mark.parametrize("name", ["python2", "/nowhere/python3.12"])
def test_a_python_that_does_not_fit_is_refused(clone: Path, bare: Path, name: str) -> None:
    fake_python(bare, "python2", fits=False)
    result = environment(clone, bare, PYTHON=name)
    assert result.returncode == 1
    assert f"PYTHON={name} is not a Python 3.11 or newer" in result.stderr


def test_without_venv_it_says_what_to_install(clone: Path, bare: Path) -> None:
    fake_python(bare, "python3", has_venv=False)
    result = environment(clone, bare)
    assert result.returncode == 1
    assert "apt-get install python3.12-venv" in result.stderr
    assert not (clone / ".venv").exists()


def test_a_failed_installation_is_told_and_tried_again(clone: Path, bare: Path) -> None:
    fake_python(bare, "python3.12", pip_works=False)
    result = environment(clone, bare)
    assert result.returncode == 1
    assert "ERROR: no torch" in result.stderr
    assert ".venv/install.log" in result.stderr
    assert not (clone / ".venv" / ".stamp").exists()
    assert environment(clone, bare).returncode == 1
    fake_python(bare, "python3.12")
    shutil.rmtree(clone / ".venv")
    assert environment(clone, bare).returncode == 0


def test_a_broken_environment_is_made_anew(clone: Path, bare: Path) -> None:
    fake_python(bare, "python3.12")
    environment(clone, bare)
    (clone / ".venv" / "bin" / "python").unlink()
    os.utime(clone / ".venv" / ".stamp", (1, 1))
    assert environment(clone, bare).returncode == 0
    assert len([call for call in calls(bare) if "-m venv" in call]) == 2


@pytest.fixture
def ready(clone: Path) -> Path:
    """A clone whose environment is up to date and whose programs say how they were called."""
    folder = clone / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("gaussline", "pytest", "ruff", "shellcheck", "python"):
        (folder / name).write_text(f'#!/bin/sh\nprintf "%s|" {name} "$@"; echo\n', "utf-8")
        (folder / name).chmod(0o755)
    (clone / ".venv" / ".stamp").touch()
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
