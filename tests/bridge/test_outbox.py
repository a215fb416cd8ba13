"""The outbox against its own definition: order by part, a cursor that passes nothing undone, a window that holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaussline.worker.bridge.backoff import Backoff, Gate
from gaussline.worker.bridge.outbox import Outbox, Slot
from gaussline.worker.bridge.parcel import Parcel, parcel_of
from gaussline.worker.bridge.patience import Patience
from gaussline.worker.errors import ContractError


def parcel(number: int, order: str) -> Parcel:
    return Parcel(f"{number}-0", f"id{number}", order, "l", "cam1", order, "pass", b"{}", {})


@given(
    st.lists(st.sampled_from(["A", "B", "C", "skip"]), max_size=60),
    st.integers(1, 9),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_any_course_of_deliveries_keeps_the_promises(
    stream: list[str], window: int, lanes: int, chance: object
) -> None:
    outbox, now = Outbox(window), 0.0
    draw = chance.random  # type: ignore[attr-defined]
    coming, under_way, done, taken = list(enumerate(stream)), list[Slot](), set[int](), dict[str, list[int]]()
    while coming or under_way or outbox.waiting:
        while coming and outbox.room > 0:
            number, order = coming.pop(0)
            if order == "skip":
                outbox.skip(f"{number}-0")
                done.add(number)
            else:
                outbox.add(parcel(number, order))
        assert outbox.room >= 0
        while len(under_way) < lanes and (slot := outbox.next(now)) is not None:
            assert slot.parcel.order not in {other.parcel.order for other in under_way}, "two of one part at a time"
            under_way.append(slot)
        now += 1.0
        if not under_way:
            wake = outbox.wake_s()
            assert (wake is None) == (outbox.waiting == 0)
            now = max(now, wake or 0.0)
            continue
        slot = under_way.pop(int(draw() * len(under_way)))
        number = int(slot.parcel.entry_id.split("-")[0])
        if draw() < 0.3:
            slot.tries += 1
            outbox.again(slot, now + 5 * draw())
        else:
            outbox.done(slot)
            done.add(number)
            taken.setdefault(slot.parcel.order, []).append(number)
        cursor = -1 if outbox.cursor is None else int(outbox.cursor.split("-")[0])
        assert set(range(cursor + 1)) <= done, "the cursor passed what was not done"
    assert all(numbers == sorted(numbers) for numbers in taken.values())
    assert sorted(done) == list(range(len(stream)))
    if stream:
        assert outbox.cursor == f"{len(stream) - 1}-0"


def test_the_least_tried_goes_first_so_that_none_that_fails_stands_before_others() -> None:
    outbox = Outbox(9)
    for number, order in enumerate("ABA"):
        outbox.add(parcel(number, order))
    first = outbox.next(0.0)
    assert first is not None
    first.tries += 1
    outbox.again(first, 0.0)
    second = outbox.next(0.0)
    assert second is not None
    assert (first.parcel.order, second.parcel.order) == ("A", "B")
    assert outbox.oldest == "0-0"


def test_a_gate_that_is_shut_lets_one_knock_at_a_time_after_growing_pauses() -> None:
    gate = Gate(Backoff(lambda: 1.0, first_s=1.0, most_s=5.0))
    assert gate.may_pass(0.0, 7)
    for pause_s in (1.0, 2.0, 4.0, 5.0, 5.0):
        now = gate.until_s
        gate.shut(now, "away")
        gate.shut(now, "away", 0.0)  # its companions' failures count with it
        assert gate.until_s == now + pause_s
        assert not gate.may_pass(gate.until_s - 0.1, 0)
        assert gate.may_pass(gate.until_s, 0)
        assert not gate.may_pass(gate.until_s, 1)
    gate.open()
    assert gate.may_pass(0.0, 7)


def test_pauses_have_jitter_and_heed_what_the_receiver_asks_for() -> None:
    assert Backoff(lambda: 0.0, 1.0, 8.0).pause_s(3) == 2.0
    assert Backoff(lambda: 1.0, 1.0, 8.0).pause_s(3) == 4.0
    assert Backoff(lambda: 0.0, 1.0, 8.0).pause_s(1000) == 4.0
    assert Backoff(lambda: 0.0, 1.0, 8.0).pause_s(1, least_s=60.0) == 60.0


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {b"json": b"{"},
        {b"json": b"[]"},
        {b"json": b"7"},
        {b"json": b'{"id":7,"decision":"pass"}'},
        {b"json": b'{"id":"","decision":"pass"}'},
        {b"json": b'{"id":"a","decision":"pass","part":["x"]}'},
        {b"json": b"[" * 100_000},
        {b"json": b"\xff"},
    ],
)
def test_what_is_no_verdict_is_an_error_of_its_own(fields: dict[bytes, bytes]) -> None:
    with pytest.raises(ContractError, match="no verdict"):
        parcel_of("1-0", "l", fields)


def test_order_is_by_part_and_by_camera_where_there_is_none() -> None:
    with_part = parcel_of("1-0", "l", {b"json": b'{"id":"a","decision":"pass","camera":"c","part":"P"}'})
    without = parcel_of("1-0", "l", {b"json": b'{"id":"a","decision":"pass","camera":"c","part":null}'})
    assert (with_part.order, without.order) == ("part:P", "camera:c")


def test_a_verdict_is_given_up_only_where_others_are_taken() -> None:
    patience = Patience(3, 0.0)
    for _ in range(50):  # the receiver is away: everything that is tried fails
        assert not patience.ended(1, 0.0, answered=True)
        assert not patience.ended(2, 0.0, answered=False)
    answers = []
    for _ in range(3):
        patience.taken(7)
        answers.append(patience.ended(1, 0.0, answered=True))
    assert answers == [False, False, True]


def test_a_verdict_that_has_a_strike_and_stands_before_all_others_is_given_up() -> None:
    patience = Patience(3, 0.0)
    assert not patience.ended(1, 0.0, answered=True)
    patience.taken(2)
    assert not patience.ended(1, 0.0, answered=True)
    assert not patience.ended(3, 0.0, answered=True), "another one fails: the receiver may be away"
    assert not patience.ended(1, 0.0, answered=True)
    assert not patience.ended(1, 0.0, answered=True)
    assert patience.ended(1, 0.0, answered=True)


def test_time_ends_it_only_while_the_receiver_answers() -> None:
    patience = Patience(0, 60.0)
    assert not patience.ended(1, 0.0, answered=True)
    assert not patience.ended(1, 59.0, answered=True)
    assert not patience.ended(1, 100.0, answered=False)
    assert not patience.ended(1, 110.0, answered=True)
    assert not patience.ended(1, 169.0, answered=True)
    assert patience.ended(1, 170.0, answered=True)
    assert not Patience(0, 0.0).ended(1, 10.0**9, answered=True)
