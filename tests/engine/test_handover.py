from __future__ import annotations

import threading

from gaussline.worker.engine.batcher import Batcher
from gaussline.worker.engine.credit import Credit
from gaussline.worker.engine.handover import Handover
from tests.support.waiting import eventually


def taken(handover: Handover[int], timeout_s: float = 30.0) -> list[int] | None:
    """The items of the next batch."""
    batch = handover.get(timeout_s)
    return None if batch is None else batch.items


def test_a_waiting_reader_is_woken_by_a_full_batch() -> None:
    handover: Handover[int] = Handover(Batcher(2, wait_s=60.0))
    got: list[list[int] | None] = []
    reader = threading.Thread(target=lambda: got.append(taken(handover, 30.0)))
    reader.start()
    handover.put([1])
    handover.put([2])
    reader.join(10.0)
    assert got == [[1, 2]]


def test_an_unfilled_batch_comes_when_its_first_item_has_waited() -> None:
    handover: Handover[int] = Handover(Batcher(100, wait_s=0.02))
    handover.put([1, 2, 3])
    assert taken(handover) == [1, 2, 3]


def test_nothing_comes_of_nothing() -> None:
    handover: Handover[int] = Handover(Batcher(2, wait_s=0.01))
    assert taken(handover, 0.01) is None
    assert not handover.finished


def test_closing_flushes_and_finishes() -> None:
    handover: Handover[int] = Handover(Batcher(2, wait_s=60.0))
    handover.put([1, 2, 3])
    handover.close()
    assert not handover.finished
    assert taken(handover) == [1, 2]
    assert taken(handover) == [3]
    assert handover.finished
    assert taken(handover) is None


def test_credit_is_spent_and_given_back() -> None:
    credit = Credit(max_frames=4, max_bytes=100)
    assert credit.available(0.0) == (4, 100)
    credit.spend(3, 60)
    assert credit.available(0.0) == (1, 40)
    credit.spend(1, 10)
    assert credit.available(0.0) == (0, 0)
    credit.give_back(frames=2)
    assert credit.available(0.0) == (2, 30)
    assert credit.held_bytes == 70


def test_a_message_over_the_whole_bound_does_not_stick() -> None:
    credit = Credit(max_frames=4, max_bytes=100)
    assert credit.available(0.0)[1] > 0
    credit.spend(1, 1_000)
    assert credit.available(0.0) == (0, 0)
    credit.give_back(frames=1, size_bytes=1_000)
    assert credit.available(0.0) == (4, 100)


def test_credit_wakes_who_waits_for_it() -> None:
    credit = Credit(max_frames=1, max_bytes=10)
    credit.spend(1, 10)
    got: list[tuple[int, int]] = []
    waiter = threading.Thread(target=lambda: got.append(credit.available(30.0)))
    waiter.start()
    credit.give_back(frames=1)
    credit.give_back(size_bytes=10)
    waiter.join(10.0)
    assert got == [(1, 10)]


def test_a_lane_that_waits_is_lent_each_item_once() -> None:
    handover: Handover[int] = Handover(Batcher(4, wait_s=60.0))
    lent: list[int] = []
    for item in (1, 2, 3):
        handover.put([item])

    def fill() -> None:
        eventually(lambda: len(lent) == 3, what="every item lent")
        handover.put([4])

    filler = threading.Thread(target=fill)
    filler.start()
    batch = handover.get(30.0, lent.append)
    filler.join(10.0)
    assert batch is not None
    assert batch.items == [1, 2, 3, 4]
    assert lent == [1, 2, 3]
    handover.put([5])
    assert handover.get(0.01, lent.append) is None
    assert lent == [1, 2, 3, 5], "what was lent is counted from the head of the queue"


def test_a_batch_that_is_due_is_not_kept_waiting_to_lend_its_items() -> None:
    handover: Handover[int] = Handover(Batcher(2, wait_s=60.0))
    handover.put([1, 2])
    lent: list[int] = []
    batch = handover.get(30.0, lent.append)
    assert batch is not None
    assert batch.items == [1, 2]
    assert lent == []


def test_credit_for_few_frames_is_saved_up() -> None:
    credit = Credit(max_frames=6, max_bytes=100, least_frames=4)
    credit.spend(3, 0)
    assert credit.available(0.0) == (0, 0)
    credit.give_back(frames=1)
    assert credit.available(0.0) == (4, 100)
