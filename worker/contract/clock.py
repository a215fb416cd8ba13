"""Times on the wire: whole microseconds since the Unix epoch inside messages, RFC 3339 UTC text in verdicts."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from gaussline.worker.errors import ContractError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_US = 4_102_444_800_000_000
"""2100-01-01: a time beyond it is a broken clock, not a capture time."""
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,6})\d*)?(Z|[+-]\d\d:\d\d)\Z", re.ASCII)


def to_text(us: int) -> str:
    """Microseconds since the Unix epoch as RFC 3339 text in UTC, always with six decimals and `Z`."""
    seconds, micros = divmod(us, 1_000_000)
    return f"{_second(seconds)}.{micros:06d}Z"


@lru_cache(maxsize=256)
def _second(seconds: int) -> str:
    """The text of a whole second: frames come by the hundred in each."""
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")


def from_text(text: str) -> int:
    """RFC 3339 text as microseconds since the Unix epoch. Raises ContractError."""
    match = _RFC3339.match(text)
    if match is None:
        raise ContractError(f"{text[:40]!r} is no RFC 3339 time, such as 2026-01-31T14:03:00.250000Z")
    seconds, fraction, zone = match.groups()
    try:
        whole = datetime.fromisoformat(seconds + ("+00:00" if zone == "Z" else zone))
    except ValueError as error:
        raise ContractError(f"{text!r} is no RFC 3339 time: {error}") from None
    return (whole - _EPOCH) // timedelta(microseconds=1) + int((fraction or "0").ljust(6, "0"))
