"""When a dead worker's messages may be claimed is known before they may be: its heir gets ready meanwhile."""

from __future__ import annotations

from tests.broker.way import Way

SOON = {"max_frames": 10, "max_bytes": 10**9}


def test_a_dead_workers_messages_are_told_of_before_they_may_be_claimed(way: Way) -> None:
    way.admit()
    way.take("dead")
    heir = way.intake("heir", claim_after_s=5.0)
    assert heir.claim(**SOON) == []
    assert heir.dead_due_s is not None
    assert 3.0 < heir.dead_due_s <= 5.0


def test_of_living_workers_and_of_what_was_handed_back_nothing_is_told(way: Way) -> None:
    way.client.set(way.keys.worker("alive"), "1")
    way.admit()
    way.take("alive")
    heir = way.intake("heir", claim_after_s=5.0)
    assert heir.claim(**SOON) == []
    assert heir.dead_due_s is None
    way.admit("cam2")
    messages = [message for message in way.take("leaver") if message.camera == "cam2"]
    way.intake("leaver").release(messages)
    assert [message.camera for message in heir.claim(**SOON)] == ["cam2"]
    assert heir.dead_due_s is None


def test_the_soonest_is_told_and_none_once_all_are_claimed(way: Way) -> None:
    for _ in range(2):
        way.admit()
    first, second = way.take("dead")
    way.client.xclaim(way.keys.frames("cam1"), "workers", "dead", 0, [second.entry_id], idle=3_000)
    heir = way.intake("heir", claim_after_s=5.0)
    assert heir.claim(**SOON) == []
    assert heir.dead_due_s is not None
    assert heir.dead_due_s <= 2.0
    now = way.intake("heir", claim_after_s=0.0)
    assert {message.entry_id for message in now.claim(**SOON)} == {first.entry_id, second.entry_id}
    assert now.dead_due_s is None
