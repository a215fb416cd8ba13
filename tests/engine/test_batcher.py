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
