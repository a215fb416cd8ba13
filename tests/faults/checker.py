"""Holds what producers were told against what a subscriber can see: the verdicts, the dead letters and the ledger.

Pure: it is handed a history and answers with findings. An empty list means that every promise held.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from gaussline.worker.broker.ledger import LedgerRow
from gaussline.worker.contract.dead_letter import METADATA_ONLY, DeadLetter
from gaussline.worker.contract.verdict import Reason
from tests.faults.frames import Kind
from tests.faults.pairs import RULE, paired
from tests.subscribers.part_oracle import decided, expected

MOST: Final = 5
"""Findings of one kind that are written out; the others are counted."""


class Fault(StrEnum):
    """What may be wrong."""

    LOST = "lost"
    DOUBLED = "doubled"
    PHANTOM = "phantom"
    WRONG = "wrong"
    LEDGER = "ledger"
    DEAD_LETTER = "dead letter"
    PART = "part"
    SUBSCRIBER = "subscriber"
    CRASH = "crash"
    STUCK = "stuck"


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken promise."""

    fault: Fault
    text: str

    def __str__(self) -> str:
        return f"{self.fault}: {self.text}"


@dataclass(frozen=True, slots=True)
class Offer:
    """A frame that a producer set out to send."""

    camera: str
    kind: Kind


@dataclass(slots=True)
class History:
    """What was said and seen in one episode.

    Attributes:
        offered: by token.
        told: tokens whose producer was told "admitted", with the frame's id.
        told_at: when it was told so, in microseconds since the Unix epoch.
        dropped: tokens whose producer was told that they are not in.
        verdicts: every entry of the verdict stream, in its order: (entry id, verdict).
        letters: every dead letter.
        parts: every part verdict, as verdicts are; None where no part judge was there.
        ledger: the final rows.
        imbalances: what was wrong with the ledger whenever it was looked at on the way.
        seen: subscriber -> (entry id, frame id) of everything it read, repetitions included.
        surprises: what no worker expected, and who ended though nobody ended it.
        excused: reasons for which any frame may be not_judged, because of what was done to it.
        lax_late: deadlines mean nothing, because the producers' clocks jumped.
    """

    offered: Mapping[int, Offer] = field(default_factory=dict)
    told: Mapping[int, str] = field(default_factory=dict)
    told_at: Mapping[int, int] = field(default_factory=dict)
    dropped: frozenset[int] = frozenset()
    verdicts: Sequence[tuple[str, Mapping[str, Any]]] = ()
    letters: Sequence[DeadLetter] = ()
    parts: Sequence[tuple[str, Mapping[str, Any]]] | None = None
    ledger: Sequence[LedgerRow] = ()
    imbalances: Sequence[str] = ()
    seen: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    surprises: Sequence[str] = ()
    excused: frozenset[Reason] = frozenset()
    lax_late: bool = False


def check(history: History) -> list[Finding]:
    """Every promise that was broken."""
    return [
        *_exactly_one(history),
        *_of_what_was_sent(history),
        *_ledger(history),
        *_letters(history),
        *_parts(history),
        *_subscribers(history),
        *(Finding(Fault.CRASH, text) for text in history.surprises),
    ]


def _exactly_one(history: History) -> Iterable[Finding]:
    entries = Counter(verdict["id"] for _, verdict in history.verdicts)
    for frame_id, count in entries.items():
        if count > 1:
            yield Finding(Fault.DOUBLED, f"{frame_id} has {count} verdicts")
    of_part: dict[str, set[str]] = defaultdict(set)
    for _, verdict in history.verdicts:
        if verdict["part"] is not None:
            of_part[verdict["part"]].add(verdict["id"])
    for part, ids in of_part.items():
        if len(ids) > 1:
            yield Finding(Fault.DOUBLED, f"frame {part} was sent once and judged as {sorted(ids)}")
    for token, frame_id in history.told.items():
        if frame_id not in entries:
            yield Finding(Fault.LOST, f"{frame_id} (frame {token}) was admitted and has no verdict")


def _of_what_was_sent(history: History) -> Iterable[Finding]:
    ids = {frame_id: token for token, frame_id in history.told.items()}
    for _, verdict in history.verdicts:
        frame_id, part = verdict["id"], verdict["part"]
        if part is None:
            # The bytes are gone; only what was admitted can say what it was.
            if verdict["reason"] not in {Reason.LOST, Reason.POISON, Reason.UNDECODABLE_MESSAGE}:
                yield Finding(Fault.WRONG, f"{frame_id} ({verdict['reason']}) names no part")
            continue
        token = int(part)
        offer = history.offered.get(token)
        if offer is None:
            yield Finding(Fault.PHANTOM, f"{frame_id} is of a frame {token} that nobody sent")
        elif token in history.dropped:
            yield Finding(Fault.PHANTOM, f"{frame_id} is of frame {token}, which was told not to be in")
        elif offer.camera != verdict["camera"] or ids.get(frame_id, token) != token:
            yield Finding(Fault.WRONG, f"{frame_id} is frame {ids.get(frame_id)}, and its verdict of frame {token}")
        else:
            yield from _right(history, verdict, token, offer.kind)
        if verdict["judged_at"] < verdict["admitted_at"]:
            yield Finding(Fault.WRONG, f"{frame_id} was judged before it was admitted")


_EXPECTED: Final = {
    Kind.GOOD: ("pass", None),
    Kind.DEFECT: ("fail", None),
    Kind.BROKEN: ("not_judged", Reason.UNDECODABLE.value),
    Kind.LATE: ("not_judged", Reason.EXPIRED.value),
    Kind.POISON: ("not_judged", Reason.POISON.value),
}


def _right(history: History, verdict: Mapping[str, Any], token: int, kind: Kind) -> Iterable[Finding]:
    said = (verdict["decision"], verdict["reason"])
    allowed = {_EXPECTED[kind]}
    if kind is Kind.LATE and history.lax_late:
        allowed.add(("pass", None))
    allowed |= {("not_judged", reason.value) for reason in history.excused}
    if said not in allowed:
        yield Finding(Fault.WRONG, f"{verdict['id']} is a {kind.name} frame and ended as {said}: {verdict['detail']}")
    elif said[0] != "not_judged" and verdict["score"] != token:
        yield Finding(Fault.WRONG, f"{verdict['id']} has the score of another frame: {verdict['score']}, not {token}")


def _ledger(history: History) -> Iterable[Finding]:
    for text in history.imbalances:
        yield Finding(Fault.LEDGER, text)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for _, verdict in history.verdicts:
        counts[verdict["camera"]][verdict["decision"]] += 1
    told: Counter[str] = Counter(history.offered[token].camera for token in history.told)
    dropped: Counter[str] = Counter(history.offered[token].camera for token in history.dropped)
    offered: Counter[str] = Counter(offer.camera for offer in history.offered.values())
    rows = {row.camera: row for row in history.ledger}
    for camera in sorted(set(counts) | set(told) - set(rows)):
        if camera not in rows:
            yield Finding(Fault.LEDGER, f"camera {camera} has verdicts or admitted frames, and no row")
    for camera, row in rows.items():
        seen = counts[camera]
        if not row.balances:
            yield Finding(Fault.LEDGER, f"{camera}: off by {row.imbalance} frames: {row}")
        if row.in_flight:
            yield Finding(Fault.STUCK, f"{camera}: {row.in_flight} frames are in flight and nobody works on them")
        said = (row.passed, row.failed, row.not_judged)
        if said != (seen["pass"], seen["fail"], seen["not_judged"]):
            yield Finding(Fault.LEDGER, f"{camera}: says pass, fail, not judged {said}; the stream has {dict(seen)}")
        if not told[camera] <= row.admitted <= offered[camera] - dropped[camera]:
            yield Finding(
                Fault.LEDGER,
                f"{camera}: {row.admitted} admitted; producers were told {told[camera]} of {offered[camera]}",
            )


def _letters(history: History) -> Iterable[Finding]:
    letters = {letter.id: letter for letter in history.letters}
    if len(letters) != len(history.letters):
        twice = [name for name, count in Counter(letter.id for letter in history.letters).items() if count > 1]
        yield Finding(Fault.DEAD_LETTER, f"more than one letter of {twice[:MOST]}")
    refused = {verdict["id"]: verdict for _, verdict in history.verdicts if verdict["decision"] == "not_judged"}
    for frame_id, verdict in refused.items():
        letter = letters.get(frame_id)
        if letter is None:
            yield Finding(Fault.DEAD_LETTER, f"{frame_id} ({verdict['reason']}) has no dead letter")
        elif letter.reason.value != verdict["reason"]:
            yield Finding(Fault.DEAD_LETTER, f"{frame_id} died of {letter.reason}, and its verdict of another reason")
        elif letter.reason in METADATA_ONLY and letter.data:
            yield Finding(Fault.DEAD_LETTER, f"{frame_id}: the letter of an {letter.reason} frame holds its bytes")
    for frame_id in letters.keys() - refused.keys():
        yield Finding(Fault.DEAD_LETTER, f"{frame_id} has a dead letter and was judged, or never admitted")


def _parts(history: History) -> Iterable[Finding]:
    """Each part has one verdict, and the one that its frames' verdicts, in their order and at their times, make."""
    if history.parts is None:
        return
    entries = [(entry_id, paired(verdict)) for entry_id, verdict in history.verdicts]
    wanted = {answer[0]: answer for answer in expected(entries, RULE.cameras, RULE.frames, RULE.deadline_ms)}
    seen = decided((entry_id, dict(verdict)) for entry_id, verdict in history.parts)
    for part, count in Counter(answer[0] for answer in seen).items():
        if count > 1:
            yield Finding(Fault.PART, f"part {part} has {count} verdicts")
    for answer in seen:
        if wanted.get(answer[0]) != answer:
            yield Finding(Fault.PART, f"part {answer[0]} was decided as {answer}, and is {wanted.get(answer[0])}")
    for part in wanted.keys() - {answer[0] for answer in seen}:
        yield Finding(Fault.PART, f"part {part} has no verdict")


def _subscribers(history: History) -> Iterable[Finding]:
    stream = {entry_id: verdict["id"] for entry_id, verdict in history.verdicts}
    for name, reads in history.seen.items():
        missed = stream.keys() - {entry_id for entry_id, _ in reads}
        if missed:
            yield Finding(Fault.SUBSCRIBER, f"{name} never read {len(missed)} entries, such as {min(missed)}")
        for entry_id, frame_id in reads:
            if stream.get(entry_id) != frame_id:
                yield Finding(Fault.SUBSCRIBER, f"{name} read {frame_id} in {entry_id}, where it is not any more")


def shortened(findings: Iterable[Finding]) -> Iterable[Finding]:
    """The first few of each kind, and how many more there are."""
    by_fault: dict[Fault, list[Finding]] = defaultdict(list)
    for finding in findings:
        by_fault[finding.fault].append(finding)
    for fault, same in by_fault.items():
        yield from same[:MOST]
        if len(same) > MOST:
            yield Finding(fault, f"and {len(same) - MOST} more")
