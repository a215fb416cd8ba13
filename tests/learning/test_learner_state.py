"""What a checkpoint holds of a learner is the whole of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields

from gaussline.worker.contract.order import Order, OrderKind
from gaussline.worker.learning.block import Block
from gaussline.worker.learning.learner import Learner
from gaussline.worker.learning.learner_state import pack_moments, pack_state, restore
from gaussline.worker.learning.obedience import obey
from gaussline.worker.learning.policy import Policy
from tests.learning.simulated import BLOCK, Line, Scene
from tests.learning.synthetic import SPEC

POLICY = Policy(block=BLOCK, half_life_frames=4_000, propose_frames=1_500)


def packed(learner: Learner) -> dict[str, bytes]:
    """The parts of a checkpoint."""
    pages = {f"page.{page.number}": page.pack() for page in learner.reservoir.pages}
    return {"moments": pack_moments(learner), "state": pack_state(learner), **pages}


def test_a_restored_learner_is_the_same_in_every_part_and_goes_on_the_same() -> None:
    """After alarms and orders of every kind, with two cameras, in the middle of a quarantine."""
    line = Line(Scene(3), POLICY)
    line.run(100 * BLOCK)
    line.order(Order(OrderKind.CONFIRM, "ada", "new lamp", camera="cam1"))
    line.run(30 * BLOCK)
    line.run(12 * BLOCK, camera="cam2")
    line.run(5 * BLOCK, defects=1.0, size=2.0)
    line.order(Order(OrderKind.FREEZE, "ada", camera="cam2"))
    line.order(Order(OrderKind.BAD, "ada", frame=f"cam1:1:{line.frame - 5}"))
    line.order(Order(OrderKind.GOOD, "ada", frame=f"cam1:1:{line.frame - 9}"))
    line.run(2 * BLOCK)
    learner = line.learner
    for held in (learner.pending, learner.bank, learner.labels, learner.vouched, learner.confirmed, learner.recent):
        assert len(held) > 0
    assert len(learner.cameras) == 2
    said = [(one.alarm.test, one.alarm.began, one.alarm.at_us) for one in line.notices if one.alarm]
    assert any(watch.alarms for watch in learner.cameras.values()), said
    assert len(learner.spans) >= 2
    learner.gated_weight = 123.5
    parts = packed(learner)
    blocks = {(entry.block.entries[0][0], entry.block.last_id): entry.block for entry in learner.pending}
    again = restore(SPEC, POLICY, parts, lambda first, last: blocks[first, last], line.gaussians)
    assert packed(again) == parts
    for field in fields(Learner):
        if isinstance(getattr(learner, field.name), int | float | str | dict | Counter) and field.name != "cameras":
            assert getattr(again, field.name) == getattr(learner, field.name), field.name
    # The same frames, judged once, by both.
    rows = line.scene.frames(BLOCK)
    items = line.judge(rows, "cam1")
    entries = [(f"{line.frame + row + 1}-0", 1) for row in range(BLOCK)]
    for one in (learner, again):
        for _ in range(3):
            one.fold(Block(entries, items, rows), obey)
    assert packed(again) == packed(learner)
    assert again.counts["seen.duplicate"] == 2 * BLOCK
