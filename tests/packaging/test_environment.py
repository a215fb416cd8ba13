"""The environment beneath every habit: made once, in one way, with a clear word where it cannot be made."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.packaging.stand_ins import DEADLINE_S, calls, fake_python, told, wait_for


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
    assert "pyproject.toml has changed" in again.stderr
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
    assert environment(clone, bare, PYTHON="python3.13").stderr == ""
    assert environment(clone, bare).stderr == ""
    assert "/python3.12)" in environment(clone, bare, PYTHON="python3.12").stderr


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
    fake_python(bare, "python3.12", pip='echo "ERROR: no torch"; exit 7')
    result = environment(clone, bare)
    assert result.returncode == 1
    assert "ERROR: no torch" in result.stderr
    assert ".venv/install.log" in result.stderr
    assert not (clone / ".venv" / ".stamp").exists()
    assert environment(clone, bare).returncode == 1
    fake_python(bare, "python3.12")
    shutil.rmtree(clone / ".venv")
    assert environment(clone, bare).returncode == 0


def test_a_moved_folder_gets_a_new_environment(clone: Path, bare: Path) -> None:
    fake_python(bare, "python3.12")
    environment(clone, bare)
    moved = clone.rename(clone.with_name("moved"))
    assert "ready after" in environment(moved, bare).stderr
    assert len([call for call in calls(bare) if "-m venv" in call]) == 2
    assert environment(moved, bare).stderr == ""


def test_a_broken_environment_is_made_anew(clone: Path, bare: Path) -> None:
    fake_python(bare, "python3.12")
    environment(clone, bare)
    (clone / ".venv" / "bin" / "python").unlink()
    os.utime(clone / ".venv" / ".stamp", (1, 1))
    assert environment(clone, bare).returncode == 0
    assert len([call for call in calls(bare) if "-m venv" in call]) == 2


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_installation_leaves_no_pip_behind(clone: Path, bare: Path, sent: signal.Signals) -> None:
    fake_python(bare, "python3.12", pip="echo $$ > pid; exec sleep 60")
    command = [str(clone / "scripts" / "environment"), ".venv"]
    variables = {**os.environ, "PATH": str(bare), "PYTHON": ""}
    with subprocess.Popen(command, cwd=clone, env=variables, stderr=subprocess.DEVNULL) as running:
        text = wait_for(lambda: (clone / "pid").exists() and (clone / "pid").read_text("utf-8"))
        assert text
        running.send_signal(sent)
        assert running.wait(DEADLINE_S) == 130
    assert wait_for(lambda: not Path("/proc", text.strip()).exists())
    assert not (clone / ".venv" / ".stamp").exists()
