"""What happens when in the demonstration of online learning, and what its verdicts said: numbers, a table, a plot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.table import Table

from gaussline.worker.commands.outcome import RANDOM
from gaussline.worker.commands.staging import note
from gaussline.worker.learning.timeline import Mark, moving_share, timeline

RATE = 0.05
DEFECT = "missing_hole"
DIMMEST = 0.86
"""The lamp's strength at the end: rendered parts differ by 2.5 % among themselves."""
WINDOW = 200
"""Good parts of one point of the plot."""


@dataclass(frozen=True, slots=True)
class Plot:
    """What is planned: numbers of frames at which things happen."""

    frames: int

    @property
    def dims(self) -> tuple[int, int]:
        """The lamp dims from here to there."""
        return max(1_050, round(0.2 * self.frames)), round(0.62 * self.frames)

    @property
    def burst(self) -> tuple[int, int]:
        """Every part is bad."""
        return round(0.7 * self.frames), round(0.75 * self.frames)

    @property
    def relapse(self) -> int:
        """Somebody puts the old version on trial."""
        return round(0.83 * self.frames)

    @property
    def again(self) -> int:
        """The bad parts of the burst come once more."""
        start, end = self.burst
        return self.frames - (end - start) // 2

    def strength(self, number: int) -> float:
        """Of the lamp."""
        start, end = self.dims
        return 1.0 - (1.0 - DIMMEST) * float(np.clip((number - start) / (end - start), 0.0, 1.0))

    def bad(self, number: int) -> int | None:
        """Which bad part lies here; None: a good one."""
        start, end = self.burst
        if start <= number < end:
            return number - start
        return number - self.again if number >= self.again else None


@dataclass(slots=True)
class Tally:
    """What the verdicts said. Lists run over frames in the order of their verdicts."""

    number: list[int] = field(default_factory=list)
    good: list[bool] = field(default_factory=list)
    failed: list[bool] = field(default_factory=list)
    frozen: list[bool] = field(default_factory=list)
    marks: list[tuple[int, str]] = field(default_factory=list)
    version: int = 1

    def add(self, verdict: dict[str, Any]) -> None:
        """Count one."""
        number, _, label = str(verdict["part"]).partition("-")
        failed = verdict["decision"] == "fail"
        opinions = {one["channel"]: one["decision"] == "fail" for one in verdict.get("opinions") or ()}
        self.number.append(int(number))
        self.good.append(label == "good")
        self.failed.append(failed)
        self.frozen.append(opinions.get("shadow", failed))

    @property
    def last(self) -> int:
        """Number of the newest frame."""
        return self.number[-1] if self.number else 0

    def mark(self, text: str) -> None:
        """Something happened now."""
        self.marks.append((self.last, text))
        note(f"frame {self.last}: {text}")

    def share(self, start: int, end: int, *, good: bool, frozen: bool = False) -> float:
        """Share of failures among the good, or the bad, frames of a stretch."""
        chosen = self.frozen if frozen else self.failed
        rows = [f for n, g, f in zip(self.number, self.good, chosen, strict=True) if start <= n < end and g is good]
        return float(np.mean(rows)) if rows else float("nan")


def table(tally: Tally, plot: Plot, random_weights: bool) -> Table:
    """Failures of good and of bad parts, a stretch a row."""
    dims, burst = plot.dims, plot.burst
    table = Table(title="online learning", caption=RANDOM if random_weights else None)
    for column in ("stretch", "what", "online", "frozen version 1"):
        table.add_column(column, justify="left" if column in ("stretch", "what") else "right")
    rows: list[tuple[str, int, int, bool]] = [
        ("before the drift", 0, dims[0], True),
        ("the lamp dims, first half", dims[0], sum(dims) // 2, True),
        ("the lamp dims, second half", sum(dims) // 2, dims[1], True),
        ("dim, until the old version is tried", dims[1], plot.relapse, True),
        ("bad parts in a row", *burst, False),
        ("the same bad parts at the end", plot.again, plot.frames, False),
    ]
    for name, start, end, good in rows:
        shares = [tally.share(start, end, good=good, frozen=frozen) for frozen in (False, True)]
        table.add_row(
            name, "good parts that fail" if good else "bad parts found", *(f"{share:.1%}" for share in shares)
        )
    return table


def draw(tally: Tally, plot: Plot, random_weights: bool) -> str:
    """The plot: false-positive rates of both over the frames, with the events."""
    rows = np.flatnonzero(tally.good)
    number = np.asarray(tally.number)[rows]
    step = slice(None, None, 10)
    lines = []
    named: tuple[tuple[str, Callable[[], list[bool]]], ...] = (
        ("online: learns, promoted", lambda: tally.failed),
        ("frozen version 1", lambda: tally.frozen),
    )
    for name, flags in named:
        share = moving_share(np.asarray(flags())[rows], WINDOW)
        lines.append((name, number[step], share[step]))
    promoted = [at for at, text in tally.marks if text.endswith("promoted")]
    shown = [Mark(at, text) for at, text in tally.marks if not text.endswith("promoted") and text != "bad parts"]
    if promoted:
        shown.append(Mark(promoted[0], f"first of {len(promoted)} canaries promoted"))
    shown.append(Mark(plot.burst[0], "bad parts in a row", float(plot.burst[1])))
    title = f"False positives on a line whose lamp dims by {1.0 - DIMMEST:.0%}"
    title += " — RANDOM WEIGHTS" if random_weights else ""
    label = f"frames; each point is the share of the newest {WINDOW} good parts that failed"
    return timeline(title, lines, shown, stated=RATE, label_x=label)
