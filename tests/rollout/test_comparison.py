"""A set beside the verdicts of the same frames."""

from __future__ import annotations

import json

from gaussline.worker.broker.copies import SetResults
from gaussline.worker.broker.sets import EVERY, Sets
from gaussline.worker.broker.verdicts import Verdicts
from gaussline.worker.learning.set_comparison import compare
from tests.rollout.conftest import Line


def test_a_set_is_not_compared_with_itself(line: Line) -> None:
    """A camera that moves takes along what is unread, of which the set has seen copies: it settles these frames too."""
    Sets(line.client, line.name).declare("b", {EVERY: "plates-b"}, by="ada")
    line.verdicts({(False, False): 20, (True, True): 5})
    verdicts = [verdict for _, verdict in Verdicts(line.client, line.name).read("0-0")]
    other = {"name": "plates-b", "version": 1, "digest": "ab" * 32, "channel": "stable"}
    results = [*verdicts[:15], *(verdict | {"model": other} for verdict in verdicts[15:])]
    told = [(each["id"], each["camera"], each["decision"], json.dumps(each)) for each in results]
    SetResults(line.client, line.name, "b").publish(told)
    found = compare(line.client, line.name, "b")
    assert (found.counts.pairs.frames, found.own, found.unmatched) == (10, 15, 0)
    assert dict(found.models[1]) == {"plates-b:1": 10}
