"""The demonstration of online learning, in a quick variant: every part of it happens, and the plot is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.cli import environment

DEMO = [sys.executable, "-m", "gaussline.worker.commands.main", "demo-online"]


@pytest.mark.timeout(300)
def test_the_demo_of_online_learning_shows_it(tmp_path: Path) -> None:
    """Random weights, marked as such: small pictures, few frames; the same processes as the long one."""
    plot = tmp_path / "plot.svg"
    options = ["--backbone", "squeezenet1_1", "--input-size", "64", "--frames", "2000", "--frames-per-second", "90"]
    done = subprocess.run(
        [*DEMO, *options, "--output", str(plot)],
        env=environment(TORCH_HOME=str(tmp_path), https_proxy="http://127.0.0.1:9", http_proxy="http://127.0.0.1:9"),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "RANDOM WEIGHTS" in done.stdout
    assert "before the drift" in done.stdout
    assert re.search(r"frame \d+: the lamp dims", done.stderr)
    drawn = ElementTree.fromstring(plot.read_text("utf-8"))
    assert len(drawn.findall(".//{http://www.w3.org/2000/svg}polyline")) == 2
    assert "RANDOM WEIGHTS" in plot.read_text("utf-8")
