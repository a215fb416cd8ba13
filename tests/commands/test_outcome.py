"""What the demo reads out of the verdicts."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from gaussline.worker.commands.outcome import Calibration, Outcome
from gaussline.worker.contract.clock import to_text
from gaussline.worker.contract.verdict import Decision

US = 1_800_000_000_000_000


def _verdict(
    sequence: int, label: str, score: float | None, decision: Decision, random: bool = False
) -> dict[str, object]:
    captured = US + sequence * 100_000
    return {
        "id": f"cam1:1:{sequence}",
        "part": f"{label}/{sequence}",
        "decision": decision.value,
        "score": score,
        "random_weights": random,
        "captured_at": to_text(captured),
        "admitted_at": to_text(captured + 1000),
        "judged_at": to_text(captured + 50_000),
    }


def _shown(outcome: Outcome, pace: float = 10.0) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(outcome.table(Calibration(0.05, 99), pace))
    defects = outcome.defects_table()
    if defects is not None:
        console.print(defects)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def outcome() -> Outcome:
    counted = Outcome()
    for n in range(10):
        counted.add(_verdict(n, "good", float(n), Decision.FAIL if n == 9 else Decision.PASS))
    for n in range(10, 14):
        counted.add(_verdict(n, "scratch", float(n - 4), Decision.FAIL if n > 11 else Decision.PASS))
    counted.add(_verdict(14, "scratch", None, Decision.NOT_JUDGED))
    return counted


def test_counts_rates_and_areas(outcome: Outcome) -> None:
    outcome.add(_verdict(0, "good", 0.0, Decision.PASS))  # read twice, counted once
    assert outcome.count == 15
    assert [outcome.of(decision) for decision in (Decision.PASS, Decision.FAIL, Decision.NOT_JUDGED)] == [11, 3, 1]
    shown = _shown(outcome)
    assert "1 of 10 (10.0%)" in shown
    assert "2 of 4 (50.0%)" in shown
    assert "0.8000" in shown, "6, 7, 8 and 9 against 0 … 9, a tie counting half: 6.5 + 7.5 + 8.5 + 9.5 of 40"
    assert "50 / 50 ms" in shown


def test_a_queue_is_not_sold_as_latency(outcome: Outcome) -> None:
    assert outcome.frames_per_second == pytest.approx(15 / 1.45)
    assert "in the queue" not in _shown(outcome, pace=10.0)
    assert "in the queue" in _shown(outcome, pace=20.0)


def test_random_weights_mark_every_table(outcome: Outcome) -> None:
    assert "RANDOM" not in _shown(outcome)
    outcome.add(_verdict(15, "good", 1.0, Decision.PASS, random=True))
    assert _shown(outcome).count("RANDOM WEIGHTS: these numbers mean nothing") == 2


def test_how_many_good_parts_may_fail_is_what_happens() -> None:
    """Simulated: the conformal rule on fresh draws stays within the interval 95 times in 100, or a little more."""
    rng = np.random.default_rng(5)
    low, high = Calibration(0.05, 99).expected_failures(1000)
    inside = 0
    for _ in range(2000):
        threshold = np.sort(rng.random(99))[-5]
        inside += low <= int((rng.random(1000) > threshold).sum()) <= high
    assert 0.94 < inside / 2000 < 0.97
    assert Calibration(0.001, 99).expected_failures(100) == (0, 0)
