"""The rules of a trial: `extra_fails > 2% or p99_ratio > 1.2`, and what they say of what was counted.

A rule speaks against a version only where its measure is beyond the limit with confidence: the bound of its interval,
not the number itself. Rules are looked at many times while a trial runs, which would find something by chance sooner
or later; so the chance of a false abort is spent over the looks. Looks lie at doubling numbers of frames; look k spends
2⁻ᵏ of `FALSE_ABORT`, and the rules of a trial share it: together they abort a version that keeps to its limits with at
most that probability, however long the trial lasts. A promotion is asked for when the time of the trial is over and
then at doubling numbers of frames, in the same manner: ask k spends 2⁻ᵏ of `FALSE_PROMOTION`. Every rule must be kept
for one, so that they need not share it. What is asked once is asked at `PROMOTE`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gaussline.worker.errors import SettingsError
from gaussline.worker.gaussian.paired import Estimate, change_of_share, largest_gap, ratio_of_shares, share
from gaussline.worker.learning.trial_counts import TrialCounts

FALSE_ABORT: Final = 0.01
"""Probability of aborting a version that keeps to its limits, over a whole trial."""
FALSE_PROMOTION: Final = 0.05
"""Probability of promoting a version that is beyond a limit, over a whole trial."""
PROMOTE: Final = 0.90
"""Two-sided confidence of one decision for a version, for every measure: 95 % on the side that counts."""

Measure = Callable[[TrialCounts, float], Estimate]


def _extra(counts: TrialCounts, confidence: float) -> Estimate:
    pairs = counts.pairs
    return share(pairs.only_new, pairs.both_pass + pairs.only_new, confidence)


def _lost(counts: TrialCounts, confidence: float) -> Estimate:
    pairs = counts.pairs
    return share(pairs.only_old, pairs.both_fail + pairs.only_old, confidence)


def _failed(counts: TrialCounts, confidence: float) -> Estimate:
    return share(counts.pairs.both_fail + counts.pairs.only_new, counts.pairs.frames, confidence)


def _disagreement(counts: TrialCounts, confidence: float) -> Estimate:
    return share(counts.pairs.only_new + counts.pairs.only_old, counts.pairs.frames, confidence)


def _p99_ratio(counts: TrialCounts, confidence: float) -> Estimate:
    return counts.p99_ratio(confidence)


MEASURES: Final[Mapping[str, tuple[Measure, str]]] = {
    "extra_fails": (_extra, "of the frames that stable passes, the share that the new version fails"),
    "lost_fails": (_lost, "of the frames that stable fails, the share that the new version passes"),
    "disagreement": (_disagreement, "share of frames on which the two decide differently"),
    "failed_share": (_failed, "share of frames that the new version fails"),
    "failed_change": (
        lambda counts, confidence: change_of_share(counts.pairs, confidence),
        "failed share of the new version minus that of stable, on the same frames",
    ),
    "failed_ratio": (
        lambda counts, confidence: ratio_of_shares(counts.pairs, confidence),
        "failed share of the new version over that of stable, on the same frames",
    ),
    "p_value_shift": (
        lambda counts, confidence: largest_gap(counts.old_p_values, counts.new_p_values, confidence),
        "largest distance between the distributions of the two versions' p-values",
    ),
    "p99_ratio": (_p99_ratio, "99th percentile of admission to verdict, canary over stable frames"),
}


class Outcome(StrEnum):
    """What the rules say."""

    GO_ON = "go_on"
    ABORT = "abort"
    CLEAR = "clear"
    """No rule speaks against it, and each measure is within its limit with confidence."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One condition that ends a trial."""

    measure: str
    above: bool
    limit: float

    def __str__(self) -> str:
        return f"{self.measure} {'>' if self.above else '<'} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule, measured.

    Attributes:
        broken: it is beyond the limit, with confidence.
        kept: it is within the limit, with confidence.
    """

    rule: Rule
    estimate: Estimate
    broken: bool
    kept: bool


def parse_rules(text: str) -> tuple[Rule, ...]:
    """`MEASURE > NUMBER[%]`, joined by `or`. Raises SettingsError that says what may stand there."""
    rules = []
    for part in re.split(r"\s+or\s+|,", text.strip()):
        match = re.fullmatch(r"\s*([a-z0-9_]+)\s*([<>])\s*(-?\d+(?:\.\d*)?)\s*(%?)\s*", part)
        if match is None:
            raise SettingsError(f"{part.strip()!r} is no rule: write for example 'extra_fails > 2% or p99_ratio > 1.2'")
        if match[1] not in MEASURES:
            raise SettingsError(f"{match[1]!r} is no measure of a trial; there are {', '.join(MEASURES)}")
        rules.append(Rule(match[1], match[2] == ">", float(match[3]) / (100.0 if match[4] else 1.0)))
    return tuple(rules)


def confidence_of(look: int, rules: int) -> float:
    """Two-sided confidence of one rule at look k, from 1; only one of the two sides can abort."""
    return 1.0 - min(1.0, 2.0 * FALSE_ABORT * 2.0**-look / max(1, rules))


def promotion_of(ask: int) -> float:
    """Two-sided confidence of a promotion when it is asked for the k-th time, from 1; only one side can be wrong."""
    return 1.0 - 2.0 * FALSE_PROMOTION * 2.0**-ask


def next_look(look: int, min_frames: int) -> int:
    """Frames at which look k, from 1, is due."""
    return int(min_frames * 2 ** (look - 1))


def findings(
    rules: tuple[Rule, ...], counts: TrialCounts, confidence: float, promotion: float = PROMOTE
) -> list[Finding]:
    """Every rule, measured; `confidence` is that of an abort, and of the intervals that are reported.

    `promotion` is that of calling a rule kept.
    """
    found = []
    for rule in rules:
        measure = MEASURES[rule.measure][0]
        estimate, loose = measure(counts, confidence), measure(counts, promotion)
        broken = estimate.low > rule.limit if rule.above else estimate.high < rule.limit
        kept = loose.high <= rule.limit if rule.above else loose.low >= rule.limit
        found.append(Finding(rule, estimate, broken, kept))
    return found


def outcome(found: list[Finding]) -> Outcome:
    """What they say together: one broken rule aborts; clear only where all are kept."""
    if any(finding.broken for finding in found):
        return Outcome.ABORT
    return Outcome.CLEAR if all(finding.kept for finding in found) else Outcome.GO_ON
