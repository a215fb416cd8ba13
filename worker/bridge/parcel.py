"""One verdict as a bridge carries it: its exact text, and the few words that a transport or the order needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gaussline.worker.contract.trace import checked
from gaussline.worker.errors import ContractError

MAX_ID = 512
"""Longest id in characters: a part's (256 bytes) and a frame's."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """What is delivered.

    Attributes:
        entry_id: its place in the stream; the cursor is one of these.
        id: the verdict's id, by which a receiver knows a repeat.
        order: parcels with the same word are delivered in the stream's order: the part, else the camera.
        camera: None for a part verdict.
        body: the verdict's JSON as it stands in Redis, UTF-8.
        fields: the same, read.
    """

    entry_id: str
    id: str
    order: str
    line: str
    camera: str | None
    part: str | None
    decision: str
    body: bytes
    fields: Mapping[str, Any]

    @property
    def trace(self) -> str | None:
        """W3C trace context of the verdict's frame, where it is traced."""
        trace = self.fields.get("traceparent")
        return checked(trace) if isinstance(trace, str) else None


def parcel_of(entry_id: str, line: str, fields: Mapping[bytes, bytes]) -> Parcel:
    """Read one stream entry. Raises ContractError: somebody else may write into the stream, and must not stop it."""
    try:
        body = fields[b"json"]
        read = json.loads(body)
        identity, decision = read["id"], read["decision"]
        part, camera = read.get("part"), read.get("camera")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ContractError(f"entry {entry_id} is no verdict: {type(error).__name__}: {str(error)[:200]}") from None
    texts = (identity, decision, *(word for word in (part, camera) if word is not None))
    if not all(isinstance(word, str) for word in texts) or not 0 < len(identity) <= MAX_ID:
        raise ContractError(f"entry {entry_id} is no verdict: id, decision, part and camera must be texts")
    order = f"part:{part}" if part else f"camera:{camera}"
    return Parcel(entry_id, identity, order, line, camera, part, decision, body, read)
