"""What the verdicts said of frames whose labels are known."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.table import Table

from gaussline.worker.contract.clock import from_text
from gaussline.worker.contract.verdict import Decision
from gaussline.worker.learning.dataset import GOOD

RANDOM = "RANDOM WEIGHTS: these numbers mean nothing"
KEPT_UP = 0.9
"""Share of the camera's pace below which the line did not keep up, and latency tells of the queue alone."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Where the working point came from: the stated rate, and how many frames it was calibrated on."""

    rate: float
    frames: int

    def expected_failures(self, good: int) -> tuple[int, int]:
        """Of so many good parts, how many should fail with 95 % probability.

        Over the draw of the n calibration frames the true rate of a conformal working point follows Beta(k, n + 1 - k),
        k = floor(rate (n + 1)) (Vovk, "Conditional validity of inductive conformal predictors", 2012).
        """
        from scipy import stats

        k = int(np.floor(self.rate * (self.frames + 1) + 1e-9))
        if k < 1:
            return 0, 0
        low, high = stats.betabinom.ppf((0.025, 0.975), good, k, self.frames + 1 - k)
        return int(low), int(high)


@dataclass(slots=True)
class Outcome:
    """Counts verdicts. The part id of a frame is its label, a slash, and a name.

    Attributes:
        normal: scores of good parts.
        defective: scores of defective ones, by defect.
        decisions: frames by (good or not, decision).
    """

    normal: list[float] = field(default_factory=list)
    defective: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    decisions: dict[tuple[bool, str], int] = field(default_factory=lambda: defaultdict(int))
    latency_s: list[float] = field(default_factory=list)
    random_weights: bool = False
    ids: set[str] = field(default_factory=set)
    _first_us: int = 0
    _last_us: int = 0

    def add(self, verdict: dict[str, Any]) -> None:
        """Count one verdict; the same one again counts once."""
        if verdict["id"] in self.ids:
            return
        self.ids.add(verdict["id"])
        label = (verdict["part"] or "").split("/", 1)[0]
        self.decisions[label == GOOD, verdict["decision"]] += 1
        self.random_weights |= verdict["random_weights"]
        judged = from_text(verdict["judged_at"])
        captured = from_text(verdict["captured_at"] or verdict["admitted_at"])
        self.latency_s.append((judged - captured) / 1e6)
        self._first_us = min(self._first_us or captured, captured)
        self._last_us = max(self._last_us, judged)
        if verdict["score"] is not None:
            (self.normal if label == GOOD else self.defective[label]).append(verdict["score"])

    @property
    def count(self) -> int:
        """Frames with a verdict."""
        return len(self.ids)

    @property
    def frames_per_second(self) -> float:
        """From the first capture to the last verdict."""
        seconds = (self._last_us - self._first_us) / 1e6
        return self.count / seconds if seconds > 0 else 0.0

    def of(self, decision: Decision) -> int:
        """Frames with a decision."""
        return sum(count for (_, decided), count in self.decisions.items() if decided == decision)

    def table(self, calibration: Calibration, pace: float) -> Table:
        """What the line said, in one table.

        Args:
            pace: frames a second that the camera was told to push.
        """
        from gaussline.worker.gaussian.metrics import auroc

        title = self._title("what the line said")
        table = Table(title=title, min_width=len(title), show_header=False)
        table.add_column("what")
        table.add_column("value", justify="right")
        decisions = (Decision.PASS, Decision.FAIL, Decision.NOT_JUDGED)
        table.add_row("frames", str(self.count))
        table.add_row("pass / fail / not judged", " / ".join(str(self.of(decision)) for decision in decisions))
        if self.normal:
            failed, good = self.decisions[True, Decision.FAIL], len(self.normal)
            low, high = calibration.expected_failures(good)
            table.add_row("good parts that failed (false alarms)", f"{failed} of {good} ({failed / good:.1%})")
            table.add_row(
                f"  as many as a stated rate of {calibration.rate:.3g} from {calibration.frames} frames allows",
                f"{low} … {high}",
            )
        defective = [score for scores in self.defective.values() for score in scores]
        if defective:
            caught = self.decisions[False, Decision.FAIL]
            table.add_row(
                "defective parts that failed (found)", f"{caught} of {len(defective)} ({caught / len(defective):.1%})"
            )
        if self.normal and defective:
            table.add_row("image AUROC", f"{auroc(self.normal, defective):.4f}")
        table.add_row("frames a second", f"{self.frames_per_second:.1f} (the camera pushed {pace:.1f})")
        if self.latency_s:
            p50, p99 = np.quantile(self.latency_s, [0.5, 0.99])
            table.add_row("latency from capture to verdict, p50 / p99", f"{1000 * p50:.0f} / {1000 * p99:.0f} ms")
            if self.frames_per_second < KEPT_UP * pace:
                table.add_row("  most of it in the queue: the camera was faster than this machine", "")
        return table

    def defects_table(self) -> Table | None:
        """AUROC by defect, None where no defective part was judged."""
        from gaussline.worker.gaussian.metrics import auroc

        if not self.defective:
            return None
        title = self._title("by defect")
        table = Table(title=title, min_width=len(title))
        for column in ("defect", "frames", "AUROC"):
            table.add_column(column, justify="left" if column == "defect" else "right")
        for name, scores in sorted(self.defective.items()):
            value = f"{auroc(self.normal, scores):.4f}" if self.normal else "–"
            table.add_row(name, str(len(scores)), value)
        return table

    def _title(self, text: str) -> str:
        return f"{text} – {RANDOM}" if self.random_weights else text
