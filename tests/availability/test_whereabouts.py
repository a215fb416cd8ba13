"""Who is believed about where the master is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import redis

from gaussline.worker.broker.address import Node
from gaussline.worker.broker.whereabouts import LOOK_AGAIN_S, Sentinels, SlotOwner, slot_of

OLD, NEW, NEWER = ("old", 1), ("new", 2), ("newer", 3)


class Sentinel:
    """A Sentinel that says what it is told to, and counts how often it is asked."""

    def __init__(self, master: Node | None, epoch: int = 0, *, down: bool = False, others: int = 2) -> None:
        self.master = master
        self.epoch = epoch
        self.down = down
        self.others = others
        self.asked = 0

    def sentinel_master(self, name: str) -> Mapping[str, Any]:
        self.asked += 1
        if self.master is None:
            raise redis.exceptions.TimeoutError("silent")
        host, port = self.master
        return {
            "ip": host,
            "port": port,
            "config-epoch": self.epoch,
            "is_sdown": self.down,
            "num-other-sentinels": self.others,
        }


def asking(*sentinels: Sentinel) -> Sentinels:
    return Sentinels([("s", place) for place in range(len(sentinels))], "main", lambda _, port: sentinels[port])


def test_a_majority_is_asked_and_no_more() -> None:
    three = Sentinel(OLD), Sentinel(OLD), Sentinel(OLD)
    assert asking(*three).find() == OLD
    assert [one.asked for one in three] == [1, 1, 0]
    alone = Sentinel(OLD, others=0)
    assert asking(alone).find() == OLD


def test_the_newest_configuration_is_believed() -> None:
    """The first Sentinel is cut off with the old master and knows of no failover."""
    assert asking(Sentinel(OLD, 1), Sentinel(NEW, 2), Sentinel(NEW, 2)).find() == NEW


def test_a_silent_sentinel_is_asked_last_the_next_time() -> None:
    silent, second, third = Sentinel(None), Sentinel(NEW), Sentinel(NEW)
    where = asking(silent, second, third)
    assert where.find() == where.find() == NEW
    assert [one.asked for one in (silent, second, third)] == [1, 2, 2]


def test_a_master_that_is_down_is_not_gone_to() -> None:
    with pytest.raises(redis.exceptions.ConnectionError, match="have not chosen another"):
        asking(Sentinel(OLD, down=True), Sentinel(OLD, down=True), Sentinel(OLD)).find()
    assert asking(Sentinel(OLD, down=True), Sentinel(OLD), Sentinel(OLD)).find() == OLD, "one alone may be wrong"


def test_nobody_knows() -> None:
    with pytest.raises(redis.exceptions.ConnectionError, match=r"no Sentinel knows the master 'main'.*silent"):
        asking(Sentinel(None), Sentinel(None)).find()


def test_a_master_that_moved_is_a_new_generation() -> None:
    first, second = Sentinel(OLD, 1), Sentinel(OLD, 1)
    where = asking(first, second)
    where.find()
    generation = where.generation
    where.find()
    assert where.generation == generation
    first.master, first.epoch = NEW, 2
    assert where.find() == NEW
    assert where.generation > generation


def test_a_hint_is_used_once() -> None:
    where = asking(Sentinel(OLD), Sentinel(OLD))
    where.forget(NEWER)
    assert where.find() == NEWER
    assert where.find() == OLD


class ClusterNode:
    """A node with a table of slots."""

    def __init__(self, table: Any) -> None:
        self.table = table
        self.asked = 0

    def execute_command(self, *words: str) -> Any:
        self.asked += 1
        assert words == ("CLUSTER", "SLOTS")
        if self.table is None:
            raise redis.exceptions.ConnectionError("away")
        return self.table

    def close(self) -> None:
        """Nothing is open."""


LINE = "line1"
SLOT = slot_of(LINE)


def table(owner: Any, port: int) -> Any:
    return [[0, SLOT - 1, [b"x", 9, b"id"]], [SLOT, 16383, [owner, port, b"id", []], [b"replica", 8, b"id"]]]


def owners(nodes: Mapping[Node, ClusterNode], *seeds: Node) -> SlotOwner:
    return SlotOwner(seeds, LINE, lambda host, port: nodes[(host, port)])


def test_the_owner_of_the_lines_slot_is_found() -> None:
    nodes = {OLD: ClusterNode(None), NEW: ClusterNode(table(b"owner", 5))}
    assert owners(nodes, OLD, NEW).find() == ("owner", 5)


@pytest.mark.parametrize("unknown", [None, b"", b"?"])
def test_an_endpoint_that_is_not_known_is_the_host_that_was_asked(unknown: bytes | None) -> None:
    assert owners({NEW: ClusterNode(table(unknown, 5))}, NEW).find() == ("new", 5)


def test_another_node_is_asked_after_one_was_wrong() -> None:
    """The first one is cut off and still believes in the old owner; those that it names are asked too."""
    stale, fresh = ClusterNode(table(b"old", 1)), ClusterNode(table(b"new", 2))
    where = owners({NEW: stale, NEWER: fresh, ("x", 9): fresh, OLD: fresh, ("replica", 8): fresh}, NEW, NEWER)
    assert where.find() == OLD
    where.forget()
    assert where.find() == NEW


def test_a_slot_without_owner_is_an_outage() -> None:
    with pytest.raises(redis.exceptions.ConnectionError, match=f"slot {SLOT} has no owner"):
        owners({NEW: ClusterNode([[0, SLOT - 1, [b"x", 9, b"id"]]])}, NEW).find()


def test_who_stays_connected_asks_again_after_a_while() -> None:
    """An old master that only we still reach answers every reading, and never says that it is none."""
    now_s = 100.0
    three = [Sentinel(OLD) for _ in range(3)]
    opened = [("s", place) for place in range(3)]
    where = Sentinels(opened, "main", lambda _, port: three[port], monotonic=lambda: now_s)
    where.find()
    generation, asked = where.generation, sum(one.asked for one in three)
    for one in three:
        one.master, one.epoch = NEW, 1
    where.look_again()
    assert (where.generation, where.moves, sum(one.asked for one in three)) == (generation, 0, asked)
    now_s += LOOK_AGAIN_S
    where.look_again()
    assert (where.generation, where.moves) == (generation + 1, 1)
    assert where.find() == NEW


def test_a_sentinel_that_was_cut_off_with_the_old_master_leads_nobody_back() -> None:
    now_s = 0.0
    stale, second, third = Sentinel(OLD, 1), Sentinel(NEW, 2), Sentinel(NEW, 2)
    three = [stale, second, third]
    opened = [("s", place) for place in range(3)]
    where = Sentinels(opened, "main", lambda _, port: three[port], monotonic=lambda: now_s)
    assert where.find() == NEW
    generation = where.generation
    second.master = third.master = None
    now_s += 2 * LOOK_AGAIN_S
    where.look_again()
    assert (where.generation, where.moves) == (generation, 0)


def test_asking_again_in_vain_changes_nothing_and_takes_little_time() -> None:
    now_s = 0.0

    class Slow(Sentinel):
        def sentinel_master(self, name: str) -> Mapping[str, Any]:
            nonlocal now_s
            now_s += 1.0 if self.master is None else 0.0
            return super().sentinel_master(name)

    three = [Slow(OLD) for _ in range(3)]
    opened = [("s", place) for place in range(3)]
    where = Sentinels(opened, "main", lambda _, port: three[port], monotonic=lambda: now_s)
    where.find()
    generation = where.generation
    for one in three:
        one.master = None
    began_s = now_s
    waited_s = 0.0
    for _ in range(1000):
        now_s += 0.1
        waited_s -= now_s
        where.look_again()
        waited_s += now_s
    assert where.generation == generation
    assert 0 < waited_s < 0.1 * (now_s - began_s)
