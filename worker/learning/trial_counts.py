"""What is counted of a trial: bounded, whatever its length, and the same whoever counts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final

from gaussline.worker.errors import ContractError
from gaussline.worker.gaussian.paired import Estimate, PairedCounts

P_BINS: Final = 50
P_FLOOR: Final = 1e-4
LATENCY_BINS: Final = 120
LATENCY_FLOOR_S: Final = 1e-3
LATENCY_GROWTH: Final = 1.08
"""A latency is known to 8 %: from a millisecond to 10 s in 120 bins."""


def p_bin(p_value: float) -> int:
    """Bin of a p-value: on a log scale, because what matters happens at the small ones."""
    place = math.log(max(p_value, P_FLOOR) / P_FLOOR) / math.log(1.0 / P_FLOOR)
    return min(P_BINS - 1, int(place * P_BINS))


def latency_bin(seconds: float) -> int:
    """Bin of a latency."""
    if seconds <= LATENCY_FLOOR_S:
        return 0
    return min(LATENCY_BINS - 1, int(math.log(seconds / LATENCY_FLOOR_S) / math.log(LATENCY_GROWTH)))


def edges_s(seconds: float) -> tuple[float, float]:
    """What may be behind an upper edge that `quantile_s` gives: both edges of its bin, the last one without an end."""
    first, last = (LATENCY_FLOOR_S * LATENCY_GROWTH**power for power in (1.5, LATENCY_BINS - 0.5))
    return 0.0 if seconds < first else seconds / LATENCY_GROWTH, math.inf if seconds > last else seconds


def quantile_s(counts: list[int], rank: int) -> float:
    """Upper edge of the bin that holds the rank-th latency, from 1; 0 where nothing was counted."""
    seen = 0
    for index, count in enumerate(counts):
        seen += count
        if seen >= rank > 0:
            return float(LATENCY_FLOOR_S * LATENCY_GROWTH ** (index + 1))
    return 0.0


@dataclass(slots=True)
class TrialCounts:
    """One trial, counted.

    Attributes:
        pairs: decisions of both versions on the same frames.
        old_p_values, new_p_values: histograms of both versions' p-values, on the same frames.
        old_latency, new_latency: admission to verdict of frames that stable, or the canary, decided.
    """

    pairs: PairedCounts = field(default_factory=PairedCounts)
    old_p_values: list[int] = field(default_factory=lambda: [0] * P_BINS)
    new_p_values: list[int] = field(default_factory=lambda: [0] * P_BINS)
    old_latency: list[int] = field(default_factory=lambda: [0] * LATENCY_BINS)
    new_latency: list[int] = field(default_factory=lambda: [0] * LATENCY_BINS)

    def compare(self, old_failed: bool, old_p: float, new_failed: bool, new_p: float) -> None:
        """Count one frame that both versions judged."""
        self.pairs = self.pairs.plus(old_failed, new_failed)
        self.old_p_values[p_bin(old_p)] += 1
        self.new_p_values[p_bin(new_p)] += 1

    def took(self, seconds: float, *, new: bool) -> None:
        """Count how long one frame took."""
        (self.new_latency if new else self.old_latency)[latency_bin(seconds)] += 1

    def p99_s(self, *, new: bool) -> float:
        """99th percentile of admission to verdict."""
        counts = self.new_latency if new else self.old_latency
        return quantile_s(counts, math.ceil(0.99 * sum(counts)))

    def p99_ratio(self, confidence: float) -> Estimate:
        """Canary over stable, with an interval from order statistics (normal approximation of their binomial ranks).

        What a bin does not tell is part of the interval: 8 % on either side, and all beyond the last one.
        """
        from scipy import stats

        old, new = sum(self.old_latency), sum(self.new_latency)
        if min(old, new) < 100:
            return Estimate(1.0, 0.0, math.inf)
        z = float(stats.norm.ppf(0.5 + confidence / 2.0))

        def bounds(counts: list[int], total: int) -> tuple[float, float, float]:
            middle, reach = 0.99 * total, z * math.sqrt(0.99 * 0.01 * total)
            low, high = math.floor(middle - reach), math.ceil(middle + reach)
            top = edges_s(quantile_s(counts, high))[1] if high <= total else math.inf
            return edges_s(quantile_s(counts, max(1, low)))[0], quantile_s(counts, math.ceil(middle)), top

        old_low, old_mid, old_high = bounds(self.old_latency, old)
        new_low, new_mid, new_high = bounds(self.new_latency, new)
        return Estimate(new_mid / old_mid, new_low / old_high, new_high / old_low if old_low else math.inf)

    def to_json(self) -> dict[str, Any]:
        """JSON-able fields."""
        pairs = self.pairs
        return {
            "pairs": [pairs.both_pass, pairs.both_fail, pairs.only_new, pairs.only_old],
            "old_p_values": self.old_p_values,
            "new_p_values": self.new_p_values,
            "old_latency": self.old_latency,
            "new_latency": self.new_latency,
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> TrialCounts:
        """From `to_json`. Raises ContractError where it is none."""
        try:
            lists = {name: [int(n) for n in fields[name]] for name in cls._widths()}
            pairs = PairedCounts(*(int(n) for n in fields["pairs"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ContractError(f"stored counts of a trial are none: {type(error).__name__}: {error}") from None
        if any(len(lists[name]) != width for name, width in cls._widths().items()):
            raise ContractError("stored counts of a trial have another number of bins")
        return cls(pairs, **lists)

    @staticmethod
    def _widths() -> dict[str, int]:
        return {
            "old_p_values": P_BINS,
            "new_p_values": P_BINS,
            "old_latency": LATENCY_BINS,
            "new_latency": LATENCY_BINS,
        }
