"""The checker itself: a clean history is clean, each broken one is found, and so is each broken worker."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from gaussline.worker.broker.ledger import LedgerRow
from gaussline.worker.contract.dead_letter import DeadLetter
from gaussline.worker.contract.verdict import Reason
from tests.faults.campaign import episodes
from tests.faults.checker import Fault, History, Offer, check
from tests.faults.frames import Kind
from tests.faults.plan import Plan, Step


def verdict(token: int, decision: str = "pass", reason: str | None = None, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"cam0:1:{token}",
        "camera": "cam0",
        "part": str(token),
        "decision": decision,
        "reason": reason,
        "detail": None,
        "score": None if reason else float(token),
        "admitted_at": "2026-01-01T00:00:00.000000Z",
        "judged_at": "2026-01-01T00:00:00.100000Z",
        **changes,
    }


def row(**changes: int) -> LedgerRow:
    values = dict.fromkeys((field.name for field in dataclasses.fields(LedgerRow)), 0)
    values |= {"admitted": 3, "passed": 1, "failed": 1, "not_judged": 1} | changes
    return LedgerRow(**values | {"camera": "cam0", "backlog_age_s": 0.0})  # type: ignore[arg-type]


def history() -> History:
    """Three frames: one passed, one failed, one broken."""
    entries = [
        ("1-0", verdict(1)),
        ("2-0", verdict(2, "fail")),
        ("3-0", verdict(3, "not_judged", "undecodable")),
    ]
    return History(
        offered={1: Offer("cam0", Kind.GOOD), 2: Offer("cam0", Kind.DEFECT), 3: Offer("cam0", Kind.BROKEN)},
        told={token: f"cam0:1:{token}" for token in (1, 2, 3)},
        verdicts=entries,
        letters=[DeadLetter("cam0:1:3", "cam0", Reason.UNDECODABLE, "")],
        ledger=[row()],
        seen={"mes": [(entry_id, one["id"]) for entry_id, one in entries]},
    )


def test_a_clean_history_is_clean() -> None:
    assert check(history()) == []


def part(name: str, decision: str, reason: str | None, *frames: int) -> tuple[str, dict[str, Any]]:
    """One answer: frames 1 and 2 are part 1, frame 3 is part 2."""
    ids = [{"id": f"cam0:1:{token}"} for token in frames]
    return f"{name}-1", {"part": name, "decision": decision, "reason": reason, "frames": ids}


def test_a_part_that_has_none_two_or_another_answer_is_found() -> None:
    told = history()
    right = [part("1", "fail", None, 1, 2), part("2", "not_judged", "missing", 3)]
    told.parts = right
    assert check(told) == []
    for parts, says in (
        (right[:1], "part 2 has no verdict"),
        ([*right, right[0]], "part 1 has 2 verdicts"),
        ([part("1", "pass", None, 1, 2), right[1]], "was decided as"),
        ([*right, part("3", "pass", None, 9)], "and is None"),
    ):
        told.parts = parts
        found = check(told)
        assert {finding.fault for finding in found} == {Fault.PART}
        assert any(says in finding.text for finding in found), found


def _replace(place: int, one: dict[str, Any]) -> Callable[[History], None]:
    def change(told: History) -> None:
        entries = list(told.verdicts)
        entries[place] = (entries[place][0], one)
        told.verdicts = entries

    return change


def _set(**fields: Any) -> Callable[[History], None]:
    def change(told: History) -> None:
        for name, value in fields.items():
            setattr(told, name, value)

    return change


@pytest.mark.parametrize(
    ("change", "fault", "says"),
    [
        (lambda told: setattr(told, "verdicts", told.verdicts[1:]), Fault.LOST, "cam0:1:1"),
        (lambda told: setattr(told, "verdicts", [*told.verdicts, ("4-0", verdict(1))]), Fault.DOUBLED, "2 verdicts"),
        (
            lambda told: setattr(told, "verdicts", [*told.verdicts, ("4-0", verdict(1, id="cam0:2:0"))]),
            Fault.DOUBLED,
            "sent once",
        ),
        (_replace(0, verdict(1, part="9")), Fault.PHANTOM, "nobody sent"),
        (_set(dropped=frozenset({1})), Fault.PHANTOM, "told not to be in"),
        (_replace(0, verdict(1, "fail")), Fault.WRONG, "GOOD frame"),
        (_replace(0, verdict(1, score=2.0)), Fault.WRONG, "score of another"),
        (_replace(0, verdict(1, part="2")), Fault.WRONG, "of frame 2"),
        (_replace(0, verdict(1, judged_at="2025-12-31T23:59:59.000000Z")), Fault.WRONG, "before it was admitted"),
        (_replace(2, verdict(3, "not_judged", "expired")), Fault.WRONG, "BROKEN frame"),
        (_set(ledger=[row(admitted=4)]), Fault.LEDGER, "off by 1"),
        (_set(ledger=[row(admitted=4, in_flight=1)]), Fault.STUCK, "1 frames are in flight"),
        (_set(ledger=[row(passed=2, failed=0)]), Fault.LEDGER, "the stream has"),
        (_set(ledger=[row(admitted=2, not_judged=0)]), Fault.LEDGER, "told 3"),
        (_set(ledger=[]), Fault.LEDGER, "no row"),
        (_set(imbalances=["once"]), Fault.LEDGER, "once"),
        (_set(letters=[]), Fault.DEAD_LETTER, "has no dead letter"),
        (
            lambda told: setattr(told, "letters", [*told.letters, *told.letters]),
            Fault.DEAD_LETTER,
            "more than one",
        ),
        (
            lambda told: setattr(
                told, "letters", [*told.letters, DeadLetter("cam0:1:1", "cam0", Reason.UNDECODABLE, "")]
            ),
            Fault.DEAD_LETTER,
            "was judged",
        ),
        (_set(seen={"mes": [("1-0", "cam0:1:1")]}), Fault.SUBSCRIBER, "never read 2"),
        (_set(surprises=["w1 ended by itself"]), Fault.CRASH, "w1"),
    ],
)
def test_each_broken_promise_is_found(change: Callable[[History], None], fault: Fault, says: str) -> None:
    told = history()
    change(told)
    found = [finding for finding in check(told) if finding.fault is fault]
    assert any(says in finding.text for finding in found), check(told)


def test_a_read_verdict_that_is_gone_is_found() -> None:
    told = history()
    told.seen = {"mes": [*told.seen["mes"], ("9-0", "cam0:1:9")]}
    assert [finding.fault for finding in check(told)] == [Fault.SUBSCRIBER]


def hard(*faults: str, slow: bool = False) -> Callable[[int], Plan]:
    """A plan in which a worker that breaks its promise has every occasion to."""
    steps = tuple(Step(0.1 + 0.08 * place, fault, place, 0.9) for place, fault in enumerate(faults))

    def plan(seed: int) -> Plan:
        return Plan(
            seed=seed,
            cameras=2,
            frames=150,
            message_frames=4,
            frame_bytes=16,
            workers=2,
            batch_frames=8,
            batch_s=0.01,
            steps=steps,
            proxied=False,
            slow_batches=(1, 3) if slow else (),
            trim=False,
            clock_jumps_s=0.0,
            kinds=(("GOOD", 0.9), ("DEFECT", 0.05), ("BROKEN", 0.05)),
        )

    return plan


KILLS = ("kill_worker",) * 4


@pytest.mark.parametrize(
    ("broken_as", "plan", "faults"),
    [
        ("acks_first", hard(*KILLS), {Fault.LOST}),
        ("no_guard", hard("stop_worker", "stop_worker"), {Fault.DOUBLED, Fault.LEDGER}),
        ("settles_twice", hard(), {Fault.DOUBLED, Fault.LEDGER}),
        ("forgets_to_claim", hard(*KILLS), {Fault.LOST, Fault.STUCK}),
    ],
)
def test_each_broken_worker_is_caught(broken_as: str, plan: Callable[[int], Plan], faults: set[Fault]) -> None:
    (result,) = episodes([1], broken_as=broken_as, plan=plan, settle_s=3.0)
    assert faults <= {finding.fault for finding in result.findings}, result.findings


def test_under_the_same_faults_the_right_worker_breaks_no_promise() -> None:
    for plan in (hard(*KILLS), hard("stop_worker", "stop_worker", slow=True)):
        (result,) = episodes([1], plan=plan)
        assert result.findings == ()
        assert result.admitted == result.verdicts
