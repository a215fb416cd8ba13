"""How soon a line recovers: a killed worker's frames, and the first verdict after a restart of Redis."""

from __future__ import annotations

from pathlib import Path

from gaussline.worker.broker.client import time_us
from gaussline.worker.contract.clock import from_text
from tests.faults.frames import Kind
from tests.faults.line import HarnessLine
from tests.faults.roles import CLAIM_AFTER_S
from tests.support.waiting import eventually

MESSAGES, FRAMES = 3, 16
RECOVERED_S = 2.0
"""After the claim time, a dead worker's frames have so long to be judged."""
RESTARTED_S = 3.0


def children(pid: int) -> list[str]:
    """Process ids of a process's children."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [child for task in tasks for child in task.read_text().split()]


def test_a_killed_workers_frames_are_judged_within_the_claim_time_and_two_seconds(tmp_path: Path) -> None:
    with HarnessLine(tmp_path) as line:
        first = line.worker("w1", batch_s=60.0)
        for _ in range(MESSAGES):
            line.send([Kind.GOOD] * FRAMES)
        eventually(lambda: line.held("w1") >= 2, what="messages in its hands")
        second = line.worker("w2", standby_after_s=0.0)
        eventually(lambda: children(second.pid), what="an isolated process that stands by")
        killed_us = time_us(line.client)
        first.kill()
        judged = [from_text(one["judged_at"]) for one in line.verdicts(MESSAGES * FRAMES)]
        assert (max(judged) - killed_us) / 1e6 < CLAIM_AFTER_S + RECOVERED_S


def test_the_first_verdict_comes_soon_after_a_restart_of_redis(tmp_path: Path) -> None:
    """From the append-only file, with frames waiting and in the hands of two workers."""
    with HarnessLine(tmp_path) as line:
        for name in ("w1", "w2"):
            line.worker(name, batch_frames=4, batch_s=0.05)
        for _ in range(20):
            line.send([Kind.GOOD] * FRAMES)
        eventually(lambda: line.client.xlen(line.keys.verdicts), what="a first verdict")
        line.server.kill()
        line.server.start()
        ready_us = time_us(line.client)
        assert line.client.xlen(line.keys.frames("cam1")), "frames waited for it"
        judged = sorted(from_text(one["judged_at"]) for one in line.verdicts(20 * FRAMES))
        after = [at for at in judged if at > ready_us]
        assert (after[0] - ready_us) / 1e6 < RESTARTED_S
        assert line.ledger().balances
