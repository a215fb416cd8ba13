"""What parts must be decided as: the definition, part by part, from a whole verdict stream. It knows no product code.

A harness compares it with the stream of part verdicts: `expected(Verdicts(...).read(...), ...)` against
`decided(PartVerdicts(...).read(...))`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Entry = tuple[str, dict[str, Any]]
Answer = tuple[str, str, str | None, tuple[str, ...]]
"""Part, decision, reason, ids of the frames that counted."""


def expected(entries: Iterable[Entry], cameras: Mapping[str, int], frames: int, deadline_ms: int) -> list[Answer]:
    """One answer a part, as if all its deadlines had passed. Parts are taken to be remembered for ever."""
    by_part: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for entry_id, verdict in entries:
        if verdict["part"]:
            by_part.setdefault(verdict["part"], []).append((int(entry_id.split("-")[0]), verdict))
    return sorted(_answer(part, seen, cameras, frames, deadline_ms) for part, seen in by_part.items())


def _answer(
    part: str, seen: list[tuple[int, dict[str, Any]]], cameras: Mapping[str, int], frames: int, deadline_ms: int
) -> Answer:
    counted: dict[str, str] = {}
    for at_ms, verdict in seen:
        if at_ms > seen[0][0] + deadline_ms:
            break
        name = verdict.get("retry_of") or verdict["id"]
        if counted.get(name, "not_judged") == "not_judged":
            counted[name] = verdict["decision"]
        if _whole(counted, cameras, frames) and "not_judged" not in counted.values():
            break
    names = tuple(counted)
    if "fail" in counted.values():
        return part, "fail", None, names
    if not _whole(counted, cameras, frames):
        return part, "not_judged", "missing", names
    if "not_judged" in counted.values():
        return part, "not_judged", "not_judged", names
    return part, "pass", None, names


def _whole(counted: Mapping[str, str], cameras: Mapping[str, int], frames: int) -> bool:
    sent = [name.split(":")[0] for name in counted]
    return len(sent) >= frames and all(sent.count(camera) >= count for camera, count in cameras.items())


def decided(entries: Iterable[Entry]) -> list[Answer]:
    """The answers on a stream of part verdicts."""
    return sorted(
        (verdict["part"], verdict["decision"], verdict["reason"], tuple(frame["id"] for frame in verdict["frames"]))
        for _, verdict in entries
    )
