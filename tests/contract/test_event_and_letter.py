"""Feature events and dead letters come back as they went, and poison nobody who reads them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gaussline.worker.contract.dead_letter import METADATA_ONLY, DeadLetter
from gaussline.worker.contract.feature_event import MAX_BYTES, MAX_FEATURES, FeatureEvent
from gaussline.worker.contract.verdict import Decision, Reason
from gaussline.worker.errors import ContractError, LimitExceeded, UnknownVersion
from tests.contract.examples import EVENT, LETTER

LEVELS = st.lists(
    arrays(np.float32, st.integers(0, 20), elements=st.floats(-(2.0**99), 2.0**99, width=32)), min_size=1, max_size=9
)


def changed(**changes: Any) -> bytes:
    """The example event with some fields changed; a field set to `...` is left out."""
    fields = {**msgpack.unpackb(EVENT.encode()), **changes}
    data = msgpack.packb({name: value for name, value in fields.items() if value is not ...})
    assert isinstance(data, bytes)
    return data


def same(one: FeatureEvent, other: FeatureEvent) -> bool:
    """Equal in every field; features bit for bit."""
    pairs = zip(one.features, other.features, strict=True)
    equal = all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in pairs)
    return equal and replace(one, features=()) == replace(other, features=())


@given(
    LEVELS,
    st.sampled_from([Decision.PASS, Decision.FAIL]),
    st.floats(0, 1e9),
    st.floats(0, 1),
    st.booleans(),
    st.floats(1e-3, 1e6),
    st.none() | st.dictionaries(st.text(max_size=9), st.floats(-1e9, 1e9), min_size=1, max_size=5),
)
def test_an_event_comes_back_as_it_went(
    levels: list[Any],
    decision: Decision,
    score: float,
    p_value: float,
    reservoir: bool,
    weight: float,
    statistics: dict[str, float] | None,
) -> None:
    event = replace(
        EVENT,
        features=tuple(levels),
        decision=decision,
        score=score,
        p_value=p_value,
        reservoir=reservoir,
        weight=weight,
        statistics=statistics,
    )
    assert same(FeatureEvent.decode(event.encode()), event)


def test_features_travel_little_endian_whatever_they_were() -> None:
    values = np.arange(6, dtype=np.float32)
    forms: list[Any] = [values.astype(">f4"), values.astype(np.float64), np.repeat(values, 2)[::2]]
    for given_as in forms:
        event = FeatureEvent.decode(replace(EVENT, features=(given_as,)).encode())
        assert np.array_equal(event.features[0], values)
        assert event.features[0].dtype == np.dtype("<f4")


def test_fields_of_tomorrow_are_ignored_and_missing_ones_have_defaults() -> None:
    assert same(FeatureEvent.decode(changed(color="red", more={"a": [1]})), EVENT)
    least = FeatureEvent.decode(changed(reservoir=..., weight=..., statistics=...))
    assert (least.reservoir, least.weight, least.statistics) == (False, 1.0, None)


@pytest.mark.parametrize("version", [2, 0, "1", True])
def test_an_event_of_another_version_is_an_error(version: object) -> None:
    with pytest.raises(UnknownVersion):
        FeatureEvent.decode(changed(v=version))


@pytest.mark.parametrize(
    "changes",
    [
        {"v": ...},
        {"id": ...},
        {"id": 5},
        {"camera": None},
        {"captured_us": "now"},
        {"decision": "maybe"},
        {"version": "7"},
        {"digest": b"x"},
        {"score": "high"},
        {"score": float("nan")},
        {"score": float("inf")},
        {"p": float("nan")},
        {"p": 1.5},
        {"p": -0.1},
        {"weight": 0.0},
        {"weight": float("inf")},
        {"statistics": {"exposure": float("nan")}},
        {"statistics": [1]},
        {"statistics": {"exposure": [1]}},
        {"features": b"1234"},
        {"features": ["text"]},
        {"features": [b"12345"]},
        {"features": [[1.0]]},
        {"features": [np.array([np.nan], "<f4").tobytes()]},
        {"features": [np.array([1, np.inf], "<f4").tobytes()]},
        {"features": [b""] * 1025},
    ],
)
def test_a_wrong_event_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ContractError):
        FeatureEvent.decode(changed(**changes))


def test_an_event_beyond_its_bounds_is_refused() -> None:
    with pytest.raises(LimitExceeded, match="features"):
        FeatureEvent.decode(changed(features=[bytes(4 * MAX_FEATURES), bytes(4)]))
    with pytest.raises(LimitExceeded, match="bytes"):
        FeatureEvent.decode(bytes(MAX_BYTES + 1))
    widest = FeatureEvent.decode(changed(features=[bytes(4 * MAX_FEATURES)]))
    assert widest.features[0].size == MAX_FEATURES


@given(st.binary(max_size=200))
def test_random_bytes_are_no_event(payload: bytes) -> None:
    with pytest.raises(ContractError):
        FeatureEvent.decode(payload)


@given(st.data())
def test_a_damaged_event_is_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    payload = bytearray(EVENT.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        FeatureEvent.decode(bytes(payload))
    except ContractError:
        return


# --- dead letters ----------------------------------------------------------------------------------------------------
def as_redis_gives_them(letter: DeadLetter) -> dict[bytes, bytes]:
    """The fields after a way through a stream."""
    return {
        name.encode(): value if isinstance(value, bytes) else str(value).encode()
        for name, value in letter.to_fields().items()
    }


@pytest.mark.parametrize("reason", Reason)
def test_a_letter_comes_back_and_keeps_its_bytes_where_its_reason_does(reason: Reason) -> None:
    letter = replace(LETTER, reason=reason, frames=3, deliveries=4, detail="ä, 漢")
    wanted = replace(letter, data=b"") if reason in METADATA_ONLY else letter
    assert DeadLetter.from_fields(as_redis_gives_them(letter)) == wanted


def test_overload_does_not_wash_out_evidence() -> None:
    assert {Reason.EXPIRED, Reason.LOST} == METADATA_ONLY


def test_a_detail_has_a_bound() -> None:
    assert len(str(replace(LETTER, detail="x" * 9_999).to_fields()["detail"])) == 500


@pytest.mark.parametrize(
    "changes",
    [
        {b"reason": b"boredom"},
        {b"frames": b"many"},
        {b"deliveries": b""},
        {b"id": b"\xff\xfe"},
        {b"data": None},
        {b"id": None},
    ],
)
def test_a_wrong_letter_is_refused(changes: dict[bytes, bytes | None]) -> None:
    fields = {**as_redis_gives_them(LETTER), **changes}
    with pytest.raises(ContractError, match="no dead letter"):
        DeadLetter.from_fields({name: value for name, value in fields.items() if value is not None})
