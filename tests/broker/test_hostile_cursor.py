"""A subscriber may write its own cursor, and so anything into it: that holds up nobody but itself."""

from __future__ import annotations

import pytest

from gaussline.worker.broker.line_state import LineReader
from gaussline.worker.broker.verdicts import Verdicts, trim_verdicts
from tests.broker.way import Way


def trimmed(way: Way) -> int:
    return trim_verdicts(way.client, way.line, min_age_s=0.0, max_bytes=10**9, policy="refuse")[0]


@pytest.mark.parametrize("written", [b"", b"$", b"0", b"1-", b"-1-1", b"nonsense", b"9" * 40 + b"-1", b"\xff\x00-1"])
@pytest.mark.parametrize("place", ["cursor", "registration"])
def test_nonsense_in_one_cursor_stops_neither_trimming_nor_monitoring(way: Way, place: str, written: bytes) -> None:
    verdicts = Verdicts(way.client, way.line)
    for name in ("mes", "other"):
        verdicts.register(name)
    for _ in range(3):
        way.admit()
    way.settle(way.take())
    first, second, last = (entry_id for entry_id, _ in verdicts.read("0-0"))
    for name in ("mes", "other"):
        assert verdicts.ack(name, first)
    if place == "cursor":
        way.client.getset(way.keys.cursor("mes"), written)
    else:
        way.client.hset(way.keys.subscribers, "mes", written)
    assert verdicts.ack("other", last)
    trimmed(way)
    assert LineReader(way.client, way.line).read().subscribers.keys() == {"mes", "other"}
    left = [entry_id for entry_id, _ in verdicts.read("0-0")]
    assert left[-2:] == [second, last], "what mes has not acknowledged stays"
    assert verdicts.position("mes") in ("0-0", first)
    assert verdicts.ack("mes", last), "and its next acknowledgement makes it good"
    assert verdicts.position("mes") == last
    trimmed(way)
    assert verdicts.read("0-0") == []
