"""Small plots as inline SVG: they need no library, no script and no font, print sharply, and take the page's colours.

Every function gives a whole `<svg>` element. Numbers are written with as many digits as a pixel needs; text that comes
from outside is escaped. Classes (`normal`, `defective`, `axis`, …) are styled by the report's own sheet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gaussline.worker.gaussian.metrics import roc_curve

Array = NDArray[np.float64]
WIDTH, HEIGHT = 520, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 26, 12, 44


def histogram(normal: ArrayLike, defective: ArrayLike, label: str, *, bins: int = 40) -> str:
    """Two overlaid histograms of scores, as shares of their own kind. The last bin holds all that lies beyond."""
    n, d = np.asarray(normal, np.float64), np.asarray(defective, np.float64)
    both = np.concatenate([n, d])
    low, high = float(both.min()), float(np.quantile(both, 0.985))
    if not high > low:
        low, high = low - 0.5, low + 0.5
    edges = np.linspace(low, high, bins + 1)
    shares = [np.histogram(np.minimum(values, high), edges)[0] / values.size for values in (n, d)]
    frame = _Frame((low, high), (0.0, _round_up(max(float(share.max()) for share in shares))))
    parts = frame.axes(label, "share of the images", percent_y=True)
    for kind, share in zip(("normal", "defective"), shares, strict=True):
        for index in range(bins):
            if share[index] > 0.0:
                x, right = frame.x(edges[index]), frame.x(edges[index + 1])
                y = frame.y(share[index])
                parts.append(
                    f'<rect class="bar {kind}" x="{x:.1f}" y="{y:.1f}" width="{max(right - x - 0.5, 0.5):.1f}" '
                    f'height="{frame.bottom - y:.1f}"/>'
                )
    return _svg(parts, f"Histogram of {label}, normal and defective images")


def roc(curves: Sequence[tuple[str, str, ArrayLike, ArrayLike]]) -> str:
    """ROC curves: (class, name, normal scores, defective scores) each; the first is drawn on top."""
    frame = _Frame((0.0, 1.0), (0.0, 1.0))
    parts = frame.axes("false-positive rate", "true-positive rate", percent_x=True, percent_y=True)
    corner = f'x2="{frame.x(1):.1f}" y2="{frame.y(1):.1f}"'
    parts.append(f'<line class="chance" x1="{frame.x(0):.1f}" y1="{frame.y(0):.1f}" {corner}/>')
    for kind, name, normal, defective in reversed(curves):
        fpr, tpr = roc_curve(normal, defective)
        points = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in _corners(fpr, tpr))
        parts.append(
            f'<polyline class="curve {escape(kind)}" points="{points}"><title>{escape(name)}</title></polyline>'
        )
    return _svg(parts, "ROC curve")


def intervals(rows: Sequence[tuple[str, float, float, float]], label: str, *, floor: float = 0.5) -> str:
    """A dot and its interval a row: (name, value, low, high), on one axis from about the least of them to 1."""
    least = min(min(low for _, _, low, _ in rows), 0.98)
    start = max(floor if least >= floor else 0.0, math.floor(least * 20 - 0.5) / 20)
    height = TOP + BOTTOM + 26 * len(rows)
    frame = _Frame((start, 1.0), (0.0, float(len(rows))), height=height, left=150)
    parts = frame.ticks_x(label)
    for index, (name, value, low, high) in enumerate(rows):
        y = TOP + 26 * (index + 0.5)
        parts.append(f'<text class="name" x="{frame.left - 8}" y="{y + 4:.1f}">{escape(name)}</text>')
        ends = f'x1="{frame.x(low):.1f}" x2="{frame.x(high):.1f}" y1="{y:.1f}" y2="{y:.1f}"'
        parts.append(f'<line class="interval" {ends}/>')
        parts.append(
            f'<circle class="dot" cx="{frame.x(value):.1f}" cy="{y:.1f}" r="4.5"><title>{escape(name)}: {value:.4f} '
            f"({low:.3f} … {high:.3f})</title></circle>"
        )
    return _svg(parts, label, height)


def contributions(names: Sequence[str], normal: Array, defective: Array) -> str:
    """What each level adds to the sum on average, of normal and of defective images: two bars a level.

    Args:
        normal, defective: (n, L) and (m, L) distances.
    """
    pairs = np.stack([normal.mean(axis=0), defective.mean(axis=0)])
    height = TOP + BOTTOM + 34 * len(names)
    frame = _Frame((0.0, _round_up(float(pairs.max()))), (0.0, 1.0), height=height, left=150)
    parts = frame.ticks_x("mean distance, added to the sum")
    for index, name in enumerate(names):
        y = TOP + 34 * index
        parts.append(f'<text class="name" x="{frame.left - 8}" y="{y + 21}">{escape(name)}</text>')
        for row, kind in enumerate(("normal", "defective")):
            value = float(pairs[row, index])
            parts.append(
                f'<rect class="bar solid {kind}" x="{frame.left}" y="{y + 4 + 13 * row}" '
                f'width="{max(frame.x(value) - frame.left, 0.5):.1f}" height="12"><title>{escape(name)}, {kind}: '
                f"{value:.2f}</title></rect>"
            )
    return _svg(parts, "What each level adds to the score", height)


class _Frame:
    """From numbers to pixels, and the axes."""

    def __init__(
        self, x: tuple[float, float], y: tuple[float, float], *, height: int = HEIGHT, left: int = LEFT
    ) -> None:
        self._x, self._y = x, y
        self.left, self.right = left, WIDTH - RIGHT
        self.top, self.bottom = TOP, height - BOTTOM

    def x(self, value: float) -> float:
        low, high = self._x
        return self.left + (value - low) / (high - low) * (self.right - self.left)

    def y(self, value: float) -> float:
        low, high = self._y
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)

    def axes(self, label_x: str, label_y: str, *, percent_x: bool = False, percent_y: bool = False) -> list[str]:
        parts = self.ticks_x(label_x, percent=percent_x)
        for value in _ticks(*self._y):
            y = self.y(value)
            parts.append(f'<line class="grid" x1="{self.left}" x2="{self.right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text class="tick y" x="{self.left - 6}" y="{y + 4:.1f}">{_number(value, percent_y)}</text>')
        middle = (self.top + self.bottom) / 2
        parts.append(f'<text class="label" transform="rotate(-90)" x="{-middle:.1f}" y="13">{escape(label_y)}</text>')
        return parts

    def ticks_x(self, label: str, *, percent: bool = False) -> list[str]:
        parts = []
        for value in _ticks(*self._x):
            x = self.x(value)
            parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{self.top}" y2="{self.bottom}"/>')
            parts.append(f'<text class="tick" x="{x:.1f}" y="{self.bottom + 16}">{_number(value, percent)}</text>')
        parts.append(f'<line class="axis" x1="{self.left}" x2="{self.right}" y1="{self.bottom}" y2="{self.bottom}"/>')
        middle = (self.left + self.right) / 2
        parts.append(f'<text class="label" x="{middle:.1f}" y="{self.bottom + 36}">{escape(label)}</text>')
        return parts


def _svg(parts: Sequence[str], title: str, height: int = HEIGHT) -> str:
    head = f'<svg viewBox="0 0 {WIDTH} {height}" role="img" xmlns="http://www.w3.org/2000/svg">'
    return f"{head}<title>{escape(title)}</title>{''.join(parts)}</svg>"


def _corners(x: Array, y: Array) -> list[tuple[float, float]]:
    """Points of a curve without those in the middle of a straight piece."""
    kept = [(float(x[0]), float(y[0]))]
    for index in range(1, x.size - 1):
        before, here, after = kept[-1], (x[index], y[index]), (x[index + 1], y[index + 1])
        straight = (here[0] - before[0]) * (after[1] - before[1]) - (here[1] - before[1]) * (after[0] - before[0])
        if abs(straight) > 1e-12:
            kept.append((float(here[0]), float(here[1])))
    kept.append((float(x[-1]), float(y[-1])))
    return kept


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers within a range."""
    step = _round_up((high - low) / 5.5)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _round_up(value: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten."""
    if not value > 0.0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power >= value * (1 - 1e-9))


def _number(value: float, percent: bool) -> str:
    return f"{100 * value:.4g} %" if percent else f"{value:.4g}"
