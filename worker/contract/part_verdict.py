"""The part verdict: one answer to one part that several cameras or frames have seen, as JSON text.

The JSON Schema beside this file (`part_verdict.schema.json`) is the published form; the tests hold the two together.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from gaussline.worker.contract.clock import from_text, to_text
from gaussline.worker.contract.verdict import Decision
from gaussline.worker.errors import ContractError, UnknownVersion

VERSION: Final = 1
MAX_FRAMES: Final = 256
"""Frames that a part verdict lists; a failed one further on still fails the part."""


class PartReason(StrEnum):
    """Why a part was not judged."""

    MISSING = "missing"  # an expected frame had no verdict at the deadline
    NOT_JUDGED = "not_judged"  # a frame's verdict was still `not_judged` at the deadline
    OVERFLOW = "overflow"  # more parts were open than `parts_max_open`


@dataclass(frozen=True, slots=True)
class PartFrame:
    """What one frame says of the part.

    Attributes:
        id: of the frame; of a retried one the id of the frame it is a retry of.
    """

    id: str
    camera: str
    decision: Decision


@dataclass(frozen=True, slots=True)
class PartVerdict:
    """The answer to one part.

    Attributes:
        first_us: when its first frame was judged.
        deadline_us: until when its frames count; a frame judged later is reported and changes nothing.
        decided_us: when this was decided. All three by Redis's clock.
        missing: what was expected and did not come, such as `cam2` or `2 frames`.
        surplus: frames beyond those that are listed.
    """

    line: str
    part: str
    decision: Decision
    reason: PartReason | None
    frames: tuple[PartFrame, ...]
    missing: tuple[str, ...]
    first_us: int
    deadline_us: int
    decided_us: int
    surplus: int = 0

    @property
    def id(self) -> str:
        """Stable: of the part and its first frame, so that a part id that is used again has another one."""
        return f"{self.part}@{self.frames[0].id}"

    def to_json(self) -> str:
        """One line of JSON."""
        fields: dict[str, Any] = {
            "v": VERSION,
            "id": self.id,
            "line": self.line,
            "part": self.part,
            "decision": self.decision.value,
            "reason": None if self.reason is None else self.reason.value,
            "missing": list(self.missing),
            "frames": [
                {"id": frame.id, "camera": frame.camera, "decision": frame.decision.value} for frame in self.frames
            ],
            "surplus": self.surplus,
            "first_at": to_text(self.first_us),
            "deadline_at": to_text(self.deadline_us),
            "decided_at": to_text(self.decided_us),
        }
        return json.dumps(fields, separators=(",", ":"), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> PartVerdict:
        """Read one; fields of later minor versions are ignored. Raises ContractError, UnknownVersion."""
        try:
            fields = json.loads(text)
            if type(fields["v"]) is not int or fields["v"] != VERSION:
                raise UnknownVersion(f"part verdict speaks contract version {fields['v']!r:.20}, not {VERSION}")
            return cls(
                line=fields["line"],
                part=fields["part"],
                decision=Decision(fields["decision"]),
                reason=None if fields["reason"] is None else PartReason(fields["reason"]),
                frames=tuple(
                    PartFrame(frame["id"], frame["camera"], Decision(frame["decision"])) for frame in fields["frames"]
                ),
                missing=tuple(fields["missing"]),
                first_us=from_text(fields["first_at"]),
                deadline_us=from_text(fields["deadline_at"]),
                decided_us=from_text(fields["decided_at"]),
                surplus=fields.get("surplus", 0),
            )
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ContractError(f"text is no part verdict: {type(error).__name__}: {str(error)[:200]}") from None
