"""The dead letter: the bytes of one frame, or one message, that could not be judged, with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gaussline.worker.contract.verdict import Reason
from gaussline.worker.errors import ContractError

METADATA_ONLY = frozenset({Reason.EXPIRED, Reason.LOST})
"""Reasons whose bytes are not kept: overload must not wash out the evidence of real faults."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter, a flat hash of fields on the stream of its reason.

    Attributes:
        id: identity of its (first) frame, camera:epoch:sequence; the entry id where it has none.
        frames: how many frames it stands for.
        detail: what was wrong, for a person.
        deliveries: how often the message had been delivered.
        data: a frame batch that can be admitted again, or the raw bytes where they are no such thing; may be empty.
    """

    id: str
    camera: str
    reason: Reason
    detail: str
    frames: int = 1
    deliveries: int = 1
    data: bytes = b""

    def to_fields(self) -> dict[str, str | int | bytes]:
        """As stream fields."""
        return {
            "id": self.id,
            "camera": self.camera,
            "reason": self.reason.value,
            "detail": self.detail[:500],
            "frames": self.frames,
            "deliveries": self.deliveries,
            "data": b"" if self.reason in METADATA_ONLY else self.data,
        }

    @classmethod
    def from_fields(cls, fields: Mapping[bytes, bytes]) -> DeadLetter:
        """From stream fields. Raises ContractError."""
        try:
            return cls(
                id=fields[b"id"].decode(),
                camera=fields[b"camera"].decode(),
                reason=Reason(fields[b"reason"].decode()),
                detail=fields[b"detail"].decode("utf-8", "replace"),
                frames=int(fields[b"frames"]),
                deliveries=int(fields[b"deliveries"]),
                data=fields[b"data"],
            )
        except (KeyError, ValueError) as error:
            raise ContractError(f"entry is no dead letter: {type(error).__name__}: {error}") from None
