"""The short run of the fault harness; `make faults` is the long one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.plan import FAULTS, draw
from tests.support.repository import ROOT

EPISODES = 24


@pytest.mark.timeout(240)
def test_no_episode_of_the_short_run_loses_or_doubles_a_frame(tmp_path: Path) -> None:
    """Half of them with one fault, half with several; what `make faults` runs."""
    output = tmp_path / "episodes.jsonl"
    command = [sys.executable, "-m", "tests.faults", "--seed", "3", "--episodes", str(EPISODES), "--lanes", "3"]
    ran = subprocess.run(
        [*command, "--output", str(output)], cwd=ROOT, capture_output=True, text=True, timeout=220, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    results = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    assert len(results) == EPISODES
    assert all(line["verdicts"] == line["admitted"] > 200 for line in results)


def test_a_seed_replays_its_episode() -> None:
    assert draw(41) == draw(41)
    assert draw(41) != draw(43)


def test_every_fault_has_its_turn_alone() -> None:
    alone = [draw(seed) for seed in range(0, 2 * len(FAULTS), 2)]
    assert {name for plan in alone for name in plan.faults} == set(FAULTS)
    assert all(len(plan.faults) == 1 for plan in alone)
    assert all(2 <= len(draw(seed).faults) <= 4 for seed in range(1, 40, 2))
