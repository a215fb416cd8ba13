"""The short run of the drills: failovers of each topology, asked of the replicas; a slot that moves under load."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from gaussline.worker.broker.replication import Waiting
from tests.availability.drill import Drill
from tests.availability.series import problems
from tests.support.replicated import ClusterSet
from tests.support.skips import program


@pytest.fixture(autouse=True)
def _server() -> None:
    program("redis-server", "redis-server")


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("topology", "fault"), [("sentinel", "kill"), ("sentinel", "cut_off"), ("cluster", "lag")])
def test_a_line_under_load_outlives_its_master(topology: str, fault: str, tmp_path: Path) -> None:
    """With `wait_replicas` nothing is lost and nothing doubled."""
    with Drill(topology, tmp_path, waiting=Waiting(1, 0.5)) as drill:
        failover = drill.fail_over(fault)
        tally = drill.settle()
    assert tally.wrong == []
    assert tally.admitted > 50
    assert (tally.lost, tally.doubled) == (0, 0)
    assert 0 < failover.silent_s < 20


@pytest.mark.timeout(120)
def test_a_slot_moves_under_load(tmp_path: Path) -> None:
    """The line waits while its keys are on their way, and goes on at the new owner."""
    pause = threading.Event()
    with Drill("cluster", tmp_path) as drill:
        assert isinstance(drill.topology, ClusterSet)
        target = drill.topology.move_slot(lambda: pause.wait(0.02))
        before = len(drill.entries)
        drill.await_verdicts(before + 20)
        assert drill.topology.master() is target
        tally = drill.settle()
    assert tally.wrong == []
    assert tally.admitted > 50
    assert (tally.lost, tally.doubled) == (0, 0)


def test_a_row_that_breaks_a_promise_is_told() -> None:
    row = {"topology": "sentinel", "fault": "lag", "wait": "with", "wrong": [], "lost": 0, "doubled": 0}
    row |= {"lost_within_s": 0.0}
    assert problems(row) == []
    assert problems(row | {"wrong": ["x"]}) == ["x"]
    assert problems(row | {"lost": 1}) == ["with WAIT 1 frames were lost and 0 doubled"]
    assert problems(row | {"wait": "without", "lost": 3, "doubled": 2, "lost_within_s": 0.9}) == []
    assert "1.50 s from the fault" in problems(row | {"wait": "without", "lost": 3, "lost_within_s": 1.5})[0]
    late = row | {"fault": "switch", "lost": 3, "lost_within_s": 1.2}
    assert problems(late) == [], "one replica is none that is chosen"
    assert problems(late | {"wait": "all"}) == ["with WAIT 3 frames were lost and 0 doubled"]
    assert "1.20 s from the fault" in problems(late | {"topology": "cluster", "wait": "without"})[0]
