"""Feedback: what a person or an MES says of a frame after its verdict, as flat stream fields that any client writes.

The learner reads it in the stream's order; of several entries for one frame the last one holds. When it was said is the
entry's own time, by Redis's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gaussline.worker.contract.frame import parse_frame_id
from gaussline.worker.errors import ContractError, UnknownVersion

VERSION: Final = 1
BY_MAX_BYTES: Final = 128
NOTE_MAX_BYTES: Final = 500


class Label(StrEnum):
    """What the part of the frame really is."""

    GOOD = "good"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Feedback:
    """One statement. Raises ContractError where a field breaks the contract.

    Attributes:
        id: the frame's identity, camera:epoch:sequence.
        by: who says so: a person, or the name of a system; 1 to 128 bytes of UTF-8 on one line.
        note: why; 500 bytes of UTF-8 at most, on one line.
    """

    id: str
    label: Label
    by: str
    note: str = ""

    def __post_init__(self) -> None:
        parse_frame_id(self.id)
        if not self.by.strip():
            raise ContractError("feedback must say who gives it")
        for name, text, limit in (("by", self.by, BY_MAX_BYTES), ("note", self.note, NOTE_MAX_BYTES)):
            if len(text.encode("utf-8", "replace")) > limit:
                raise ContractError(f"the feedback's {name} is longer than {limit} bytes")
            if not text.isprintable():
                raise ContractError(f"the feedback's {name} must be one line of printable text")

    @property
    def camera(self) -> str:
        """Of the frame."""
        return parse_frame_id(self.id)[0]

    def to_fields(self) -> dict[str, str | int]:
        """As stream fields."""
        return {"v": VERSION, "id": self.id, "label": self.label.value, "by": self.by, "note": self.note}

    @classmethod
    def from_fields(cls, fields: Mapping[bytes, bytes]) -> Feedback:
        """From stream fields; unknown ones are ignored. Raises ContractError, UnknownVersion."""
        try:
            if fields[b"v"] != str(VERSION).encode():
                raise UnknownVersion(f"feedback speaks version {fields[b'v'][:20]!r}; this build speaks {VERSION}")
            return cls(
                id=fields[b"id"].decode(),
                label=Label(fields[b"label"].decode()),
                by=fields[b"by"].decode(),
                note=fields.get(b"note", b"").decode(),
            )
        except (KeyError, ValueError) as error:
            raise ContractError(f"entry is no feedback: {type(error).__name__}: {str(error)[:200]}") from None
