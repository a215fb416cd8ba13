"""What a power cut explains, and what it does not."""

from __future__ import annotations

from gaussline.worker.contract.clock import from_text
from tests.faults.checker import Fault, Finding, History, check
from tests.faults.power_cut import WINDOW_S, explain
from tests.faults.test_checker import history, row, verdict

JUDGED_US = from_text(verdict(1)["judged_at"])


def broken(told: History, cut_us: int) -> list[Fault]:
    return [finding.fault for finding in explain(told, check(told), [cut_us]).broken]


def lost() -> History:
    told = history()
    told.verdicts = told.verdicts[1:]
    told.ledger = [row(admitted=2, passed=0)]
    told.told_at = {1: JUDGED_US}
    return told


def doubled() -> History:
    told = history()
    told.verdicts = [*told.verdicts, ("4-0", verdict(1, judged_at="2026-01-01T00:00:09.000000Z"))]
    told.seen = {}
    return told


def test_what_was_admitted_or_judged_shortly_before_a_cut_may_be_lost_or_doubled() -> None:
    for told in (lost(), doubled()):
        assert broken(told, JUDGED_US + 1_000_000) == []
        far = JUDGED_US + int((WINDOW_S + 1) * 1e6)
        assert broken(told, far) == [Fault.LOST if len(told.verdicts) == 2 else Fault.DOUBLED]
    assert explain(lost(), check(lost()), [JUDGED_US + 1_000_000]).lost_within_s == 1.0
    assert explain(doubled(), check(doubled()), [JUDGED_US + 500_000]).doubled_within_s == 0.5


def test_without_a_cut_every_finding_breaks_a_promise() -> None:
    told = lost()
    assert explain(told, check(told), []).broken == tuple(check(told))


def test_no_cut_explains_a_ledger_that_does_not_balance_a_wrong_verdict_or_a_crash() -> None:
    told = history()
    told.ledger = [row(admitted=4)]
    assert broken(told, JUDGED_US) == [Fault.LEDGER]
    told = history()
    told.imbalances = ["on the way: cam0"]
    told.surprises = ["w1 ended by itself"]
    assert broken(told, JUDGED_US) == [Fault.LEDGER, Fault.CRASH]
    told = history()
    told.verdicts = [("1-0", verdict(1, "fail")), *told.verdicts[1:]]
    assert Fault.WRONG in broken(told, JUDGED_US)
    assert explain(told, [Finding(Fault.STUCK, "x")], [JUDGED_US]).broken
