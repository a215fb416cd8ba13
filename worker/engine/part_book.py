"""The book of open parts: pure, so that the same verdicts in the same order give the same part verdicts, always.

Time is the verdict stream's own: an entry's id is the moment it was written, by Redis's clock. A part's deadline is the
moment of its first frame's verdict plus a stated time; a frame whose verdict was written by then counts, however late
somebody reads it. So a process that was away for an hour, or that is killed and begins again, decides exactly the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gaussline.worker.contract.part_verdict import MAX_FRAMES, PartFrame, PartReason, PartVerdict
from gaussline.worker.contract.verdict import Decision


@dataclass(frozen=True, slots=True)
class PartRule:
    """What makes a part whole.

    Attributes:
        cameras: frames that each camera must send.
        frames: frames that must come in all; 0 where only the cameras count.
        deadline_ms: after its first frame's verdict.
        max_open: parts that may be open at once.
    """

    cameras: Mapping[str, int]
    frames: int
    deadline_ms: int
    max_open: int = 10_000

    def missing(self, frames: Sequence[PartFrame], surplus: int) -> tuple[str, ...]:
        """What has not come."""
        came: dict[str, int] = {}
        for frame in frames:
            came[frame.camera] = came.get(frame.camera, 0) + 1
        said = []
        for camera, count in self.cameras.items():
            lacking = count - came.get(camera, 0)
            if lacking > 0:
                said.append(camera if count == 1 else f"{lacking} of {count} of {camera}")
        lacking = self.frames - len(frames) - surplus
        if lacking > 0:
            said.append(f"{lacking} of {self.frames} frames")
        return tuple(said)


@dataclass(slots=True)
class OpenPart:
    """One part that is not decided."""

    part: str
    first_ms: int
    frames: list[PartFrame] = field(default_factory=list)
    surplus: int = 0
    failed: bool = False

    def to_json(self) -> str:
        """As it is kept in Redis."""
        frames = [[frame.id, frame.camera, frame.decision.value] for frame in self.frames]
        said = {"first_ms": self.first_ms, "frames": frames, "surplus": self.surplus, "failed": self.failed}
        return json.dumps(said, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, part: str, text: str | bytes) -> OpenPart:
        """The reverse of `to_json`."""
        said = json.loads(text)
        frames = [PartFrame(name, camera, Decision(decision)) for name, camera, decision in said["frames"]]
        return cls(part, said["first_ms"], frames, said["surplus"], said["failed"])


@dataclass(frozen=True, slots=True)
class LateFrame:
    """A frame that was judged after its part was decided."""

    part: str
    frame: PartFrame


@dataclass(slots=True)
class Turn:
    """What one turn changed."""

    decided: list[PartVerdict] = field(default_factory=list)
    late: list[LateFrame] = field(default_factory=list)
    touched: set[str] = field(default_factory=set)
    closed: set[str] = field(default_factory=set)
    without_part: int = 0


class PartBook:
    """The open parts of a line.

    Args:
        now_us: when decisions are made, for `decided_at` alone.
    """

    def __init__(self, line: str, rule: PartRule, open_parts: Sequence[OpenPart] = ()) -> None:
        self._line = line
        self._rule = rule
        # In the order of their first frames, and so of their deadlines.
        self._open = {part.part: part for part in sorted(open_parts, key=lambda part: part.first_ms)}

    def __len__(self) -> int:
        return len(self._open)

    def get(self, part: str) -> OpenPart | None:
        """An open part."""
        return self._open.get(part)

    @property
    def next_deadline_ms(self) -> int | None:
        """When the next part is due."""
        first = next(iter(self._open.values()), None)
        return None if first is None else first.first_ms + self._rule.deadline_ms

    def read(
        self,
        entries: Sequence[tuple[str, Mapping[str, Any]]],
        is_decided: Callable[[str], bool],
        now_us: int,
    ) -> Turn:
        """Take verdicts in the stream's order. `is_decided` tells of a part that is not open whether it was decided."""
        turn = Turn()
        for entry_id, verdict in entries:
            at_ms = int(entry_id.partition("-")[0])
            self._close_due(at_ms, turn, now_us)
            part = verdict["part"]
            if not part:
                turn.without_part += 1
                continue
            frame = _frame(verdict)
            if part not in self._open:
                if part in turn.closed or is_decided(part):
                    turn.late.append(LateFrame(part, frame))
                    continue
                self._make_room(turn, now_us)
                self._open[part] = OpenPart(part, at_ms)
            turn.touched.add(part)
            self._take(self._open[part], frame, turn, now_us)
        return turn

    def expire(self, now_ms: int, now_us: int) -> Turn:
        """Decide what is due, where every verdict written before `now_ms` has been read."""
        turn = Turn()
        self._close_due(now_ms, turn, now_us)
        return turn

    def _take(self, part: OpenPart, frame: PartFrame, turn: Turn, now_us: int) -> None:
        failed = frame.decision is Decision.FAIL
        for place, other in enumerate(part.frames):
            if other.id == frame.id:
                # The same frame again: read twice, or retried. An answer stands; only `not_judged` gives way to one.
                if other.decision is Decision.NOT_JUDGED:
                    part.frames[place] = frame
                    part.failed = part.failed or failed
                break
        else:
            part.failed = part.failed or failed
            if len(part.frames) < MAX_FRAMES:
                part.frames.append(frame)
            else:
                part.surplus += 1
        judged = all(other.decision is not Decision.NOT_JUDGED for other in part.frames)
        if judged and not self._rule.missing(part.frames, part.surplus):
            self._decide(part, turn, now_us)

    def _close_due(self, now_ms: int, turn: Turn, now_us: int) -> None:
        while (due_ms := self.next_deadline_ms) is not None and due_ms < now_ms:
            self._decide(next(iter(self._open.values())), turn, now_us)

    def _make_room(self, turn: Turn, now_us: int) -> None:
        while len(self._open) >= self._rule.max_open:
            self._decide(next(iter(self._open.values())), turn, now_us, overflow=True)

    def _decide(self, part: OpenPart, turn: Turn, now_us: int, *, overflow: bool = False) -> None:
        missing = self._rule.missing(part.frames, part.surplus)
        reason: PartReason | None = None
        decision = Decision.FAIL if part.failed else Decision.PASS
        if not part.failed:
            if missing:
                reason = PartReason.OVERFLOW if overflow else PartReason.MISSING
            elif any(frame.decision is Decision.NOT_JUDGED for frame in part.frames):
                reason = PartReason.OVERFLOW if overflow else PartReason.NOT_JUDGED
            decision = Decision.PASS if reason is None else Decision.NOT_JUDGED
        first_us, deadline_us = part.first_ms * 1000, (part.first_ms + self._rule.deadline_ms) * 1000
        frames = tuple(part.frames)
        turn.decided.append(
            PartVerdict(
                self._line,
                part.part,
                decision,
                reason,
                frames,
                missing,
                first_us,
                deadline_us,
                max(now_us, first_us),
                part.surplus,
            )
        )
        turn.touched.add(part.part)
        turn.closed.add(part.part)
        del self._open[part.part]


def _frame(verdict: Mapping[str, Any]) -> PartFrame:
    """A frame of the part; a retried one stands in the place of the frame it is a retry of."""
    name = verdict.get("retry_of")
    if name is None or ":" not in name:
        return PartFrame(verdict["id"], verdict["camera"], Decision(verdict["decision"]))
    return PartFrame(name, name.split(":", 1)[0], Decision(verdict["decision"]))
