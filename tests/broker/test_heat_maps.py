"""The ring of heat maps on real servers: whole maps under their references, within bytes and age."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gaussline.worker.broker.heat_maps import PIECE_BYTES, HeatMaps
from gaussline.worker.contract.heat_map import Explanation, reference
from gaussline.worker.contract.verdict import ModelRef
from gaussline.worker.errors import BrokerError, ContractError, NotFound
from tests.broker.way import Way

REF = ModelRef("default", 1, "ab" * 32)


def explanation(sequence: int, side: int = 20) -> Explanation:
    values = np.random.default_rng(sequence).standard_normal((side, side)).astype(np.float32)
    return Explanation(5.0, (side, side), {"a": values}, {"a": 5.0}, {"a": 5.0}, f"cam1:1:{sequence}", REF)


def name(sequence: int) -> str:
    return reference(f"cam1:1:{sequence}", REF.digest)


def test_a_map_of_many_pieces_comes_back_whole(way: Way) -> None:
    waited: list[float] = []
    ring = HeatMaps(way.client, way.line, sleep=waited.append)
    large = explanation(1, side=600)
    data = large.to_bytes()
    ring.put(name(1), data)
    assert len(waited) == -(-len(data) // PIECE_BYTES) - 1 >= 5, "a large map is written in paced pieces"
    assert max(len(value) for value in way.client.hvals(way.keys.heat(name(1)))) <= 512_000
    read = ring.get(name(1))
    assert read.levels["a"].tobytes() == large.levels["a"].tobytes()
    assert (read.frame, read.model, read.score) == ("cam1:1:1", REF, 5.0)
    assert ring.has([name(1), name(2)]) == [True, False]
    assert way.client.ttl(way.keys.heat(name(1))) == -1
    with pytest.raises(NotFound, match="not made yet, it was shed"):
        ring.get(name(2))
    with pytest.raises(ContractError):
        ring.get("../x")


def test_the_same_map_twice_is_one_map(way: Way) -> None:
    ring = HeatMaps(way.client, way.line)
    data = explanation(1).to_bytes()
    ring.put(name(1), data)
    ring.put(name(1), data)
    count = ring.count()
    assert (count.maps, count.size_bytes, count.dropped) == (1, len(data), 0)


def test_the_oldest_go_where_bytes_or_age_are_over_their_bound(way: Way) -> None:
    size = len(explanation(1).to_bytes())
    ring = HeatMaps(way.client, way.line, max_bytes=3 * size + size // 2)
    for sequence in range(5):
        ring.put(name(sequence), explanation(sequence).to_bytes())
    count = ring.count()
    assert (count.maps, count.size_bytes, count.dropped, count.aged) == (3, 3 * size, 2, 0)
    assert ring.has([name(sequence) for sequence in range(5)]) == [False, False, True, True, True]
    assert HeatMaps(way.client, way.line, max_age_s=1e-6).trim() == (0, 3)
    count = ring.count()
    assert (count.maps, count.size_bytes, count.aged) == (0, 0, 3)
    with pytest.raises(BrokerError, match="larger than the whole ring"):
        HeatMaps(way.client, way.line, max_bytes=10).put(name(1), explanation(1).to_bytes())


def test_a_half_written_map_is_never_seen_and_does_not_stay(way: Way) -> None:
    class DiedError(Exception):
        pass

    def die(seconds: float) -> None:
        raise DiedError

    with pytest.raises(DiedError):
        HeatMaps(way.client, way.line, writer="w1", sleep=die).put(name(1), explanation(1, side=600).to_bytes())
    with pytest.raises(NotFound):
        HeatMaps(way.client, way.line).get(name(1))
    assert 0 < way.client.ttl(way.keys.heat_part("w1")) <= 60
    small = explanation(2)
    HeatMaps(way.client, way.line, writer="w1").put(name(2), small.to_bytes())  # nothing of the torn one is left in it
    assert HeatMaps(way.client, way.line).get(name(2)).levels["a"].shape == (20, 20)


def test_a_part_that_expired_is_said(way: Way) -> None:
    ring = HeatMaps(way.client, way.line, sleep=lambda seconds: way.client.delete(way.keys.heat_part("-")))
    with pytest.raises(BrokerError, match="vanished"):
        ring.put(name(1), explanation(1, side=300).to_bytes())
    assert ring.count().maps == 0


def test_another_type_of_key_is_an_error(way: Way) -> None:
    way.client.set(way.keys.heats, "x")
    with pytest.raises(BrokerError, match="not a zset"):
        HeatMaps(way.client, way.line).put(name(1), replace(explanation(1)).to_bytes())
    assert way.client.get(way.keys.heats) == b"x"
