"""The rules of a trial: read, measured, and seldom wrong over many looks."""

from __future__ import annotations

import numpy as np
import pytest

from gaussline.worker.contract.trial import Selection, Trial, from_fields, parse_duration, parse_share, to_fields
from gaussline.worker.errors import ContractError, SettingsError
from gaussline.worker.gaussian.paired import PairedCounts
from gaussline.worker.learning.trial_counts import LATENCY_FLOOR_S, LATENCY_GROWTH, TrialCounts, quantile_s
from gaussline.worker.learning.trial_rules import (
    FALSE_ABORT,
    FALSE_PROMOTION,
    MEASURES,
    Outcome,
    Rule,
    confidence_of,
    findings,
    next_look,
    outcome,
    parse_rules,
    promotion_of,
)

LOOKS = 6


def counts(*cells: int) -> TrialCounts:
    return TrialCounts(PairedCounts(*cells))


def aborts(cells: tuple[float, ...], text: str, trials: int, seed: int) -> float:
    """Share of trials that are aborted at one of their looks."""
    rng = np.random.default_rng(seed)
    rules = parse_rules(text)
    stopped = 0
    for _ in range(trials):
        seen = np.zeros(4, np.int64)
        for look in range(1, LOOKS + 1):
            due = next_look(look, 200)
            seen += rng.multinomial(due - int(seen.sum()), cells)
            now = counts(*(int(cell) for cell in seen))
            if outcome(findings(rules, now, confidence_of(look, len(rules)))) is Outcome.ABORT:
                stopped += 1
                break
    return stopped / trials


def test_a_version_at_its_limits_is_seldom_aborted_over_many_looks() -> None:
    """Extra fails are 2 % of what stable passes, lost fails 30 % of what it fails: both exactly at their limits."""
    at_limit = (0.95 * 0.98, 0.05 * 0.7, 0.95 * 0.02, 0.05 * 0.3)
    assert aborts(at_limit, "extra_fails > 2% or lost_fails > 30%", 800, 1) <= FALSE_ABORT


def test_looking_at_a_plain_interval_every_time_would_abort_far_more() -> None:
    at_limit = (0.95 * 0.98, 0.05 * 0.7, 0.95 * 0.02, 0.05 * 0.3)
    rules = parse_rules("extra_fails > 2%")
    rng = np.random.default_rng(2)
    stopped = 0
    for _ in range(200):
        rows = rng.multinomial(1, at_limit, size=next_look(LOOKS, 200)).cumsum(axis=0)
        looks = (counts(*(int(cell) for cell in rows[at])) for at in range(199, len(rows), 200))
        stopped += any(findings(rules, now, 0.95)[0].broken for now in looks)
    assert stopped / 200 > 3 * FALSE_ABORT


def promoted(asks: list[int], confidences: list[float], trials: int, seed: int) -> float:
    """Share of trials of a version exactly at its limit that are promoted, asked for at these numbers of frames."""
    rules = parse_rules("extra_fails > 2%")
    rng = np.random.default_rng(seed)
    passed = 0
    for _ in range(trials):
        extra = np.cumsum(rng.random(asks[-1]) < 0.02)
        looks = zip(asks, confidences, strict=True)
        passed += any(
            findings(rules, counts(n - int(extra[n - 1]), 0, int(extra[n - 1]), 0), 0.99, confidence)[0].kept
            for n, confidence in looks
        )
    return passed / trials


def test_a_version_at_its_limit_is_seldom_promoted_however_often_that_is_asked_for() -> None:
    doubling = [300 * 2**ask for ask in range(4)]
    assert promoted(doubling, [promotion_of(ask) for ask in range(1, 5)], 400, 6) <= FALSE_PROMOTION
    plain = list(range(300, 2401, 60))
    assert promoted(plain, [0.9] * len(plain), 100, 6) > 2 * FALSE_PROMOTION, "asked for again and again it would be"


def test_a_much_worse_version_is_aborted() -> None:
    assert aborts((0.85, 0.05, 0.10, 0.0), "extra_fails > 2%", 100, 3) == 1.0
    assert aborts((0.95, 0.0, 0.0, 0.05), "lost_fails > 30%", 100, 4) == 1.0


@pytest.mark.parametrize("measure", MEASURES)
def test_every_measure_reads_and_judges(measure: str) -> None:
    (rule,) = parse_rules(f"{measure} > 150%")
    assert rule == Rule(measure, True, 1.5)
    good = counts(990, 10, 0, 0)
    for seconds in np.linspace(0.01, 0.02, 500):
        good.took(float(seconds), new=False)
        good.took(float(seconds), new=True)
    for p in np.linspace(0.01, 1.0, 1000):
        good.compare(False, float(p), False, float(p))
    assert outcome(findings((rule,), good, 0.99)) is not Outcome.ABORT


def test_a_slow_canary_breaks_the_rule_of_latency() -> None:
    slow = TrialCounts()
    rng = np.random.default_rng(5)
    for seconds in rng.gamma(4.0, 0.01, 4000):
        slow.took(float(seconds), new=False)
        slow.took(float(2 * seconds), new=True)
    (found,) = findings(parse_rules("p99_ratio > 1.2"), slow, 0.99)
    assert found.broken
    assert 1.7 < found.estimate.value < 2.3
    assert abs(slow.p99_s(new=False) / 0.1 - 1.0) < 0.15
    assert quantile_s([0, 0], 1) == 0.0


def test_what_the_bins_of_latencies_do_not_tell_is_not_held_against_a_canary() -> None:
    edge = LATENCY_FLOOR_S * LATENCY_GROWTH**50
    near, slow, idle = TrialCounts(), TrialCounts(), TrialCounts()
    for _ in range(20_000):
        near.took(0.999 * edge, new=False)
        near.took(1.001 * edge, new=True)
        slow.took(15.0, new=False)
        slow.took(90.0, new=True)
        idle.took(0.0, new=False)
        idle.took(0.0, new=True)
    assert not findings(parse_rules("p99_ratio > 1.05"), near, 0.99)[0].broken
    assert findings(parse_rules("p99_ratio > 1.2"), near, 0.99)[0].kept
    assert not findings(parse_rules("p99_ratio > 1.2"), slow, 0.99)[0].kept, "beyond the last bin nothing is known"
    assert not findings(parse_rules("p99_ratio > 1.2"), idle, 0.99)[0].broken


def test_a_rule_below_its_limit_reads_the_other_way() -> None:
    (rule,) = parse_rules("failed_change < -1%")
    assert (rule.above, rule.limit) == (False, -0.01)
    assert findings((rule,), counts(900, 0, 0, 100), 0.99)[0].broken
    assert findings((rule,), counts(5000, 100, 0, 0), 0.99)[0].kept


@pytest.mark.parametrize(
    "text", ["", "extra_fails", "extra_fails > x", "extra_fails >= 1", "os > 1", "extra_fails > 1 and"]
)
def test_other_texts_are_no_rules(text: str) -> None:
    with pytest.raises(SettingsError, match=r"rule|measure"):
        parse_rules(text)


def test_a_canary_draws_the_same_frames_everywhere_and_not_those_that_are_kept() -> None:
    import zlib

    chosen = Selection(0.1)
    ids = [f"cam1:1:{n}" for n in range(20_000)]
    drawn = np.array([chosen.takes("cam1", each) for each in ids])
    assert abs(drawn.mean() - 0.1) < 0.01
    assert [Selection(0.1).takes("cam1", each) for each in ids[:500]] == drawn[:500].tolist()
    kept = np.array([zlib.crc32(each.encode()) < 0.1 * 2**32 for each in ids])
    assert abs(kept[drawn].mean() - 0.1) < 0.03, "the two draws are independent"
    assert Selection(0.0, ("cam2",)).takes("cam2", "cam2:1:1")
    assert not Selection(0.0, ("cam2",)).takes("cam1", "cam1:1:1")
    wider = np.array([Selection(0.3).takes("cam1", each) for each in ids])
    assert wider[drawn].all(), "a share that grows keeps the frames it had"


def test_trials_travel_as_json() -> None:
    selection, trial = Selection(0.1, ("a", "b")), Trial(60.0, "extra_fails > 1%", 10, promote=False)
    assert from_fields(to_fields(selection, trial)) == (selection, trial)
    assert from_fields({}) == (None, None)
    for wrong in ({"selection": 3}, {"trial": {"for_s": "x"}}, {"selection": {"share": 2.0, "cameras": []}}):
        with pytest.raises(ContractError):
            from_fields(wrong)
    assert TrialCounts.from_json(counts(1, 2, 3, 4).to_json()).pairs == PairedCounts(1, 2, 3, 4)
    with pytest.raises(ContractError):
        TrialCounts.from_json({**counts().to_json(), "old_latency": [1]})


@pytest.mark.parametrize(
    ("text", "seconds"), [("45s", 45), ("30m", 1800), ("1h30m", 5400), ("2d", 172_800), ("0.5h", 1800)]
)
def test_lengths_of_time(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "30x", "1h x"])
def test_no_lengths_of_time(text: str) -> None:
    with pytest.raises(SettingsError, match="length of time"):
        parse_duration(text)


def test_shares() -> None:
    assert (parse_share("10%"), parse_share("0.1"), parse_share("100 %")) == (0.1, 0.1, 1.0)
    for text in ("0", "", "x", "101%", "-1%", "1.5"):
        with pytest.raises(SettingsError, match="share"):
            parse_share(text)
