"""The newcomer's first command, end to end."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gaussline.producer.sources.synthetic import SyntheticParts, write_folder
from tests.support.cli import environment
from tests.support.skips import data, needs_data
from tests.support.waiting import eventually

DEMO = [sys.executable, "-m", "gaussline.worker.commands.main", "demo"]


def children(of: int) -> set[int]:
    """Process ids of all descendants."""
    found: set[int] = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = status.parent.name, status.read_text().rsplit(")", 1)[1]
        except OSError:
            continue
        if int(rest.split()[1]) == of:
            found |= {int(pid)} | children(int(pid))
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    write_folder(SyntheticParts(5, size=96), folder, good=100, defects=5)
    return folder


@pytest.mark.timeout(300)
@needs_data("weights/squeezenet1_1.pth")
def test_the_demo_shows_a_whole_line(parts: Path) -> None:
    weights = data("weights/squeezenet1_1.pth")
    done = subprocess.run(
        [
            *DEMO,
            "--data",
            str(parts),
            "--weights",
            str(weights),
            "--backbone",
            "squeezenet1_1",
            "--frames-per-second",
            "50",
        ],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(r"frames +│ +50 ", done.stdout), done.stdout
    assert "balances" in done.stdout
    assert "RANDOM" not in done.stdout
    for defect in ("scratch", "spot", "missing_hole", "blur"):
        assert defect in done.stdout


@pytest.mark.timeout(300)
def test_without_weights_it_says_so_and_marks_every_result(parts: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [*DEMO, "--data", str(parts), "--backbone", "squeezenet1_1", "--frames", "12", "--frames-per-second", "50"],
        # A proxy that is not there: torchvision's weights cannot be downloaded, on any machine.
        env=environment(TORCH_HOME=str(tmp_path), https_proxy="http://127.0.0.1:9", http_proxy="http://127.0.0.1:9"),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cannot be" in done.stderr
    assert "RANDOM weights" in done.stderr
    assert done.stdout.count("RANDOM WEIGHTS") >= 2


@pytest.mark.timeout(300)
@pytest.mark.parametrize("numbers", [(signal.SIGTERM, signal.SIGINT), (signal.SIGKILL,)])
def test_stopped_it_leaves_nothing_behind(parts: Path, tmp_path: Path, numbers: tuple[signal.Signals, ...]) -> None:
    """An impatient second signal changes nothing; after SIGKILL a folder may stay, a process may not."""
    process = subprocess.Popen(
        [*DEMO, "--data", str(parts), "--backbone", "squeezenet1_1", "--frames-per-second", "1"],
        env=environment(TORCH_HOME=str(tmp_path), https_proxy="http://127.0.0.1:9", TMPDIR=str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert any("✓ starting a producer" in line for line in process.stderr)
    started = children(process.pid)
    assert len(started) >= 3, "a Redis, a worker and a producer"
    for number in numbers:
        process.send_signal(number)
        eventually(lambda: len(children(process.pid)) < len(started), what="the first sign of its end")
    process.communicate(timeout=60)
    eventually(lambda: not [pid for pid in started if alive(pid)], what="the end of every process")
    if signal.SIGKILL not in numbers:
        assert process.returncode == 130
        assert not list(tmp_path.glob("gaussline-*"))
