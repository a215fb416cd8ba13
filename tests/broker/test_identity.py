"""An id comes from the clock and is no identity: of two masters beside each other both may give the same."""

from __future__ import annotations

from dataclasses import replace

from tests.broker.way import Way, settlement


def test_a_verdict_settles_no_other_message_that_has_its_messages_id(way: Way) -> None:
    for _ in range(2):
        way.admit(frames=2)
    old, new = way.take()
    here = replace(settlement(old), entry_id=new.entry_id)
    assert way.settler().settle([here]) == [False]
    assert way.verdict_ids() == []
    assert way.ledger().in_flight == 4
    assert way.settle([new, old]) == [True, True]
    assert way.ledger().balances
