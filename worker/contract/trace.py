"""W3C trace context as it stands in frames and verdicts: one text, `traceparent`. No library is needed to carry it."""

from __future__ import annotations

import re

_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}\Z")


def checked(text: str | None) -> str | None:
    """The text where it is a `traceparent` of version 00, else None: what comes from outside goes no further unseen."""
    return text if text is not None and _TRACEPARENT.match(text) else None


def trace_id(traceparent: str) -> str:
    """The trace's own id, 32 digits, of a checked text."""
    return traceparent[3:35]


def is_sampled(traceparent: str) -> bool:
    """Whether who began the trace records it."""
    return bool(int(traceparent[53:55], 16) & 1)
