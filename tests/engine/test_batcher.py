from __future__ import annotations

import pytest

from gaussline.worker.engine.batcher import Batcher


def test_a_full_batch_is_due_at_once() -> None:
    batcher: Batcher[int] = Batcher(3, wait_s=1.0)
    batcher.add([1, 2, 3, 4], now_s=10.0)
    assert batcher.remaining_s(10.0) == 0.0
    assert batcher.pop(10.0) == [1, 2, 3]
    assert batcher.pop(10.0) == []
    assert len(batcher) == 1


def test_the_deadline_is_fixed_by_the_first_item() -> None:
    batcher: Batcher[str] = Batcher(8, wait_s=1.0)
    batcher.add(["first"], now_s=0.0)
    batcher.add(["second"], now_s=0.9)
    assert batcher.remaining_s(0.9) == pytest.approx(0.1)
    assert batcher.pop(0.99) == []
    assert batcher.pop(1.0) == ["first", "second"]


def test_what_is_left_of_a_full_batch_keeps_its_own_arrival() -> None:
    batcher: Batcher[int] = Batcher(2, wait_s=1.0)
    batcher.add([1], now_s=0.0)
    batcher.add([2, 3], now_s=0.5)
    assert batcher.pop(0.5) == [1, 2]
    assert batcher.remaining_s(0.5) == pytest.approx(1.0)
    assert batcher.pop(1.49) == []
    assert batcher.pop(1.5) == [3]


def test_flush_takes_what_there_is() -> None:
    batcher: Batcher[int] = Batcher(4, wait_s=60.0)
    batcher.add([1], now_s=0.0)
    assert batcher.pop(0.0, flush=True) == [1]
    assert batcher.pop(0.0, flush=True) == []
    assert batcher.remaining_s(0.0) is None


@pytest.mark.parametrize(("size", "wait"), [(0, 1.0), (1, -0.1)])
def test_nonsense_is_refused(size: int, wait: float) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        Batcher(size, wait)


def arrivals(batcher: Batcher[int], start_s: float, gap_s: float, count: int) -> list[float]:
    """How long each of some items waits that come one by one, taken as soon as they are due."""
    waits = []
    for number in range(count):
        now_s = start_s + number * gap_s
        batcher.add([number], now_s)
        remaining = batcher.remaining_s(now_s)
        assert remaining is not None
        waits.append(remaining)
        assert batcher.pop(now_s + remaining) == [number]
    return waits


def test_an_item_that_comes_alone_again_and_again_waits_no_more() -> None:
    batcher: Batcher[int] = Batcher(8, wait_s=0.01)
    waits = arrivals(batcher, 0.0, 0.05, 40)
    assert waits[0] == pytest.approx(0.01)
    assert waits[12:] == [0.0] * 28


def test_items_that_come_within_the_wait_go_on_waiting() -> None:
    batcher: Batcher[int] = Batcher(8, wait_s=0.01)
    assert arrivals(batcher, 0.0, 0.019, 200) == pytest.approx([0.01] * 200)


def test_company_is_expected_soon_again_after_a_long_pause() -> None:
    batcher: Batcher[int] = Batcher(8, wait_s=0.01)
    arrivals(batcher, 0.0, 0.05, 100)
    waits = arrivals(batcher, 3600.0, 0.005, 60)
    assert waits[0] == 0.0
    assert waits[45:] == pytest.approx([0.01] * 15)


def test_items_that_come_together_are_company() -> None:
    batcher: Batcher[int] = Batcher(64, wait_s=0.01)
    for number in range(50):
        batcher.add(range(8), number * 0.05)
        assert batcher.remaining_s(number * 0.05) == pytest.approx(0.01)
        batcher.pop(number * 0.05 + 0.01)
