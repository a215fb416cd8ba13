"""Times on the wire."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaussline.worker.contract.clock import MAX_US, from_text, to_text
from gaussline.worker.errors import ContractError


@given(st.integers(0, MAX_US))
def test_times_come_back_to_the_microsecond(us: int) -> None:
    text = to_text(us)
    assert from_text(text) == us
    assert len(text) == 27
    assert text.endswith("Z")
    assert datetime.fromisoformat(text) == datetime.fromtimestamp(us // 10**6, UTC).replace(microsecond=us % 10**6)


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.5Z", 500_000),
        ("1970-01-01T00:00:00.000001Z", 1),
        ("1970-01-01T00:00:00.1234567899Z", 123_456),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1969-12-31T19:00:00.25-05:00", 250_000),
        ("2100-01-01T00:00:00Z", MAX_US),
    ],
)
def test_rfc_3339_as_others_write_it_is_read(text: str, us: int) -> None:
    assert from_text(text) == us


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-01-31",
        "2026-01-31T14:03:00",
        "2026-01-31 14:03:00Z",
        "2026-02-30T14:03:00Z",
        "2026-01-31T25:03:00Z",
        "2026-01-31T14:03:00.Z",
        "2026-01-31T14:03:00Z\n",
        "2026-01-31T14:03:00.٣Z",
        "٢026-01-31T14:03:00Z",
        "2026-01-31T14:03:00+99:99",
        "2026-01-31T14:03:00Zjunk",
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ContractError, match="RFC 3339"):
        from_text(text)
