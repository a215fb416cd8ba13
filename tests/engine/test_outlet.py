from __future__ import annotations

import itertools
import threading

import pytest

from gaussline.worker.engine.batcher import Batcher
from gaussline.worker.engine.handover import Handover
from gaussline.worker.engine.outlet import Outlet


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_batches_leave_in_the_order_of_the_hand_over(order: tuple[int, ...]) -> None:
    outlet: Outlet[int] = Outlet()
    left: list[int] = []
    for number in order:
        outlet.put(10 * number, number)
        left += outlet.take(0.0, 100)
        assert left == sorted(left)
    assert left == [0, 10, 20, 30]


def test_what_has_no_place_waits_for_nobody() -> None:
    outlet: Outlet[str] = Outlet()
    outlet.put("second", 1)
    outlet.put("refused at intake")
    assert outlet.take(0.0, 100) == ["refused at intake"]
    outlet.put("first", 0)
    assert outlet.take(0.0, 100) == ["first", "second"]


def test_a_batch_that_will_never_come_holds_up_nobody() -> None:
    outlet: Outlet[str] = Outlet()
    outlet.put("second", 1)
    assert outlet.take(0.0, 100) == []
    outlet.skip(0)
    assert outlet.take(0.0, 100) == ["second"]


def test_at_most_what_was_asked_for_is_taken() -> None:
    outlet: Outlet[int] = Outlet()
    for number in range(5):
        outlet.put(number)
    assert outlet.take(0.0, 3) == [0, 1, 2]
    outlet.close()
    assert not outlet.finished
    assert outlet.take(30.0, 3) == [3, 4]
    assert outlet.finished
    assert outlet.take(30.0, 3) == []


def test_closing_wakes_who_waits() -> None:
    outlet: Outlet[int] = Outlet()
    got: list[list[int]] = []
    reader = threading.Thread(target=lambda: got.append(outlet.take(30.0, 1)))
    reader.start()
    outlet.close()
    reader.join(10.0)
    assert got == [[]]


def test_two_lanes_share_what_one_put_brought() -> None:
    """One put wakes one lane; the second batch must not wait for the other lane's sleep to end."""
    handover: Handover[int] = Handover(Batcher(2, wait_s=60.0))
    got: list[tuple[int, list[int]]] = []

    def lane() -> None:
        batch = handover.get(30.0)
        assert batch is not None
        got.append((batch.number, batch.items))

    lanes = [threading.Thread(target=lane) for _ in range(2)]
    for each in lanes:
        each.start()
    handover.put([1, 2, 3, 4])
    for each in lanes:
        each.join(10.0)
    assert sorted(got) == [(0, [1, 2]), (1, [3, 4])]
