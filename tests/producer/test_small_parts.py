"""Backoff, pacing, part ids, moments and the reader: the producer's small parts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from random import Random

import pytest

from gaussline.producer.backoff import Backoff
from gaussline.producer.clock import SystemClock
from gaussline.producer.part_pattern import PartPattern
from gaussline.producer.reader import Reader
from gaussline.producer.shot import Shot, deadline_us, to_us
from gaussline.producer.sources.rate import Pace
from gaussline.worker.errors import ContractError, SettingsError, SourceError
from tests.producer.times import START_US, HandClock


# --- backoff ---------------------------------------------------------------------------------------------------------
def test_waits_grow_to_their_cap_and_fill_their_range() -> None:
    backoff = Backoff(0.1, 2.0, Random(1))
    ceilings = []
    for _ in range(8):
        ceilings.append(backoff.ceiling_s)
        assert 0 <= backoff.next_s() <= ceilings[-1]
    assert ceilings == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0])
    waits = sorted(backoff.next_s() for _ in range(1_000))
    assert waits[0] < 0.02
    assert waits[-1] > 1.98
    assert waits[500] == pytest.approx(1.0, abs=0.1)
    backoff.reset()
    assert backoff.ceiling_s == 0.1


def test_a_day_of_attempts_overflows_nothing() -> None:
    backoff = Backoff(0.05, 5.0, Random(1))
    assert max(backoff.next_s() for _ in range(20_000)) <= 5.0
    with pytest.raises(ValueError, match="first_s"):
        Backoff(2.0, 1.0, Random(1))


# --- pacing ----------------------------------------------------------------------------------------------------------
def test_a_schedule_is_kept_and_never_moves() -> None:
    clock = HandClock()
    pace = Pace(10.0, clock)
    moments = []
    for number in range(8):
        pace.wait()
        moments.append(round(clock.elapsed_s, 6))
        if number == 2:
            clock.elapsed_s += 0.35  # somebody was slow
    assert moments == [0.0, 0.1, 0.2, 0.55, 0.55, 0.55, 0.6, 0.7]
    assert pace.late_s == pytest.approx(0.0)


def test_lateness_is_known() -> None:
    clock = HandClock()
    pace = Pace(10.0, clock)
    pace.wait()
    clock.elapsed_s = 1.0
    pace.wait()
    assert pace.late_s == pytest.approx(0.9)


@pytest.mark.parametrize("rate", [0.0, -1.0, 1e7, float("nan"), float("inf")])
def test_no_such_rate(rate: float) -> None:
    with pytest.raises(SettingsError, match="rate"):
        Pace(rate)


# --- part ids --------------------------------------------------------------------------------------------------------
def test_part_ids_are_made_of_what_is_known() -> None:
    shot = Shot(b"", name="bad/scratch/0042.png", label="scratch")
    assert PartPattern("A-{n:06d}", "cam1").fill(7, shot) == "A-000007"
    assert PartPattern("{label}:{stem}@{camera}", "cam1").fill(0, shot) == "scratch:0042@cam1"
    assert PartPattern("{name}", "cam1").fill(3, Shot(b"")) == "frame3"
    assert PartPattern("{{n}}{label}", "cam1").fill(3, Shot(b"")) == "{n}"


@pytest.mark.parametrize("pattern", ["{x}", "{n.real}", "{n[0]}", "{}", "{n", "{n:{camera}}", "{stem:d}", "{n:q}"])
def test_other_patterns_are_refused_at_once(pattern: str) -> None:
    with pytest.raises(SettingsError, match="part id pattern"):
        PartPattern(pattern, "cam1")


# --- moments ---------------------------------------------------------------------------------------------------------
def test_moments_are_read_exactly() -> None:
    moment = datetime(2026, 1, 31, 14, 3, 0, 1, UTC)
    assert to_us("x", moment) == 1_769_868_180_000_001
    assert to_us("x", moment.astimezone(timezone(timedelta(hours=9)))) == to_us("x", moment)
    assert to_us("x", 5) == 5
    assert deadline_us(timedelta(milliseconds=2), 10) == 2_010
    assert deadline_us(moment, 10) == to_us("x", moment)
    assert deadline_us(None, 10) is None


@pytest.mark.parametrize("moment", [datetime(2026, 1, 1), 0, -5, 2**60, True, "now", 1.5])
def test_no_such_moment(moment: datetime | int) -> None:
    with pytest.raises(ContractError, match="captured_at"):
        to_us("captured_at", moment)


def test_no_such_deadline() -> None:
    with pytest.raises(ContractError, match="deadline"):
        deadline_us(5.0, 10)  # type: ignore[arg-type]
    with pytest.raises(ContractError, match="deadline"):
        deadline_us(timedelta(seconds=-1), 10)


# --- reader ----------------------------------------------------------------------------------------------------------
def shots(count: int) -> Iterator[Shot]:
    """Numbered shots."""
    return (Shot(b"%d" % number) for number in range(count))


def test_a_reader_hands_everything_over_in_order() -> None:
    reader = Reader(shots(100), depth=3, clock=HandClock()).start()
    taken = []
    while some := reader.take(7):
        assert len(some) <= 7
        taken += some
    assert [shot.image for shot in taken] == [b"%d" % number for number in range(100)]
    assert {shot.captured_at for shot in taken} == {START_US}
    assert reader.take(7) == []


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_a_reader_ends_at_its_limit(limit: int) -> None:
    source = iter(range(10))
    reader = Reader((Shot(b"%d" % number) for number in source), limit=limit).start()
    taken = 0
    while some := reader.take(2):
        taken += len(some)
    assert taken == limit
    assert next(source) == limit


def test_what_a_source_raises_comes_after_its_shots() -> None:
    def broken() -> Iterator[Shot]:
        yield Shot(b"0")
        raise SourceError("torn")

    reader = Reader(broken()).start()
    assert len(reader.take(5)) == 1
    with pytest.raises(SourceError, match="torn"):
        reader.take(5)


def test_a_source_that_waits_is_read_no_further_than_there_is_room() -> None:
    drawn: list[int] = []
    third = threading.Event()

    def source() -> Iterator[Shot]:
        for number in range(100):
            drawn.append(number)
            if number == 3:
                third.set()
            yield Shot(b"")

    reader = Reader(source(), depth=3).start()
    assert third.wait(10)
    assert drawn == [0, 1, 2, 3]
    reader.close()


def test_a_live_source_never_waits() -> None:
    reader = Reader(shots(10), depth=3, live=True).start()
    reader._thread.join(10)
    assert len(reader.take(10)) == 3
    assert reader.take(10) == []
    assert reader.overrun == 7


def test_a_reader_is_stopped_between_two_shots_and_in_its_pause() -> None:
    reader = Reader(shots(10**9), pace=Pace(0.001), clock=SystemClock()).start()
    assert len(reader.take(1)) == 1
    reader.stop()
    assert reader.take(1) == []
    reader.close()
    reader._thread.join(10)
    assert not reader._thread.is_alive()
