"""A plot of rates over time with events marked: one SVG file that opens anywhere, and stands in a README."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import ArrayLike, NDArray

WIDTH, HEIGHT = 920, 430
LEFT, RIGHT, TOP, BOTTOM = 62, 18, 96, 52
COLOURS = ("#0b6e4f", "#c1440e", "#4a5c8a")
MARK_ROWS = 3
LETTER = 6.6
"""Width of a letter of a mark's text, on average and rather too much."""
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#333}.head{font-size:16px;font-weight:600}.small{font-size:11.5px}"
    ".grid{stroke:#e3e3e3}.axis{stroke:#555}.mark{stroke:#888;stroke-dasharray:3 3}.span{fill:#f4d9a8;opacity:.55}"
    ".stated{stroke:#555;stroke-dasharray:6 4}polyline{fill:none;stroke-width:2.2;stroke-linejoin:round}"
)


@dataclass(frozen=True, slots=True)
class Mark:
    """An event at `x`, or a stretch up to `until`."""

    x: float
    text: str
    until: float | None = None


def moving_share(flags: ArrayLike, window: int) -> NDArray[np.float64]:
    """Share of true ones among the newest `window` of (n,) flags, at each; NaN before half a window is there."""
    values = np.asarray(flags, np.float64)
    total = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, values.size + 1)
    starts = np.maximum(ends - window, 0)
    share: NDArray[np.float64] = (total[ends] - total[starts]) / np.maximum(ends - starts, 1)
    share[: min(window // 2, share.size)] = np.nan
    return share


def timeline(
    title: str,
    series: Sequence[tuple[str, ArrayLike, ArrayLike]],
    marks: Sequence[Mark],
    *,
    stated: float,
    label_x: str,
) -> str:
    """One SVG: lines (name, x, share 0 … 1) over time, a stated rate, and marks.

    The share's axis is a square root, so that a stated rate of a few per cent and a rate of 100 % are both seen.
    """
    last = max(float(np.max(np.asarray(x))) for _, x, _ in series)
    last = max([last, *(mark.until or mark.x for mark in marks)])

    def at_x(value: float) -> float:
        return LEFT + value / last * (WIDTH - LEFT - RIGHT)

    def at_y(share: float) -> float:
        return HEIGHT - BOTTOM - float(np.sqrt(share)) * (HEIGHT - TOP - BOTTOM)

    low = HEIGHT - BOTTOM
    parts = [f'<text class="head" x="{LEFT}" y="22">{escape(title)}</text>']
    for mark in marks:
        if mark.until is not None:
            width = max(at_x(mark.until) - at_x(mark.x), 1.0)
            parts.append(
                f'<rect class="span" x="{at_x(mark.x):.1f}" y="{TOP}" width="{width:.1f}" height="{low - TOP}"/>'
            )
    for share in (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0):
        y = at_y(share)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text text-anchor="end" x="{LEFT - 8}" y="{y + 4:.1f}">{100 * share:.0f} %</text>')
    for value in _ticks(last):
        parts.append(f'<text text-anchor="middle" x="{at_x(value):.1f}" y="{low + 20}">{value:.0f}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{low}" y2="{low}"/>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text text-anchor="middle" x="{middle}" y="{HEIGHT - 10}">{escape(label_x)}</text>')
    y = at_y(stated)
    parts.append(f'<line class="stated" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
    ends: list[list[tuple[float, float]]] = [[] for _ in range(MARK_ROWS)]
    for mark in sorted(marks, key=lambda one: one.x):
        x, width = at_x(mark.x), LETTER * len(mark.text)
        anchor, start = ("end", x - 3 - width) if x + width > WIDTH else ("start", x + 3)
        row = _free_row(ends, start, start + width)
        y = TOP - 8 - 14 * row
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{low}"/>')
        at = x - 3 if anchor == "end" else start
        parts.append(f'<text class="small" text-anchor="{anchor}" x="{at:.1f}" y="{y}">{escape(mark.text)}</text>')
    for number, (name, places, values) in enumerate(series):
        colour = COLOURS[number % len(COLOURS)]
        pairs = zip(np.asarray(places, np.float64), np.asarray(values, np.float64), strict=True)
        points = " ".join(f"{at_x(x):.1f},{at_y(share):.1f}" for x, share in pairs if np.isfinite(share))
        parts.append(f'<polyline stroke="{colour}" points="{points}"/>')
        left = LEFT + 210 * number
        parts.append(f'<line stroke="{colour}" stroke-width="3" x1="{left}" x2="{left + 22}" y1="40" y2="40"/>')
        parts.append(f'<text x="{left + 28}" y="44">{escape(name)}</text>')
    left = LEFT + 210 * len(series)
    parts.append(f'<line class="stated" x1="{left}" x2="{left + 22}" y1="40" y2="40"/>')
    parts.append(f'<text x="{left + 28}" y="44">stated rate, {100 * stated:g} %</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">'
    body = "\n".join(parts)
    return f'{head}<style>{_STYLE}</style><rect width="100%" height="100%" fill="#fff"/>\n{body}\n</svg>\n'


def _free_row(taken: list[list[tuple[float, float]]], start: float, end: float) -> int:
    """The lowest row in which nothing lies between two places yet, and that place in it; the highest where none is."""
    free = (all(end + LETTER <= a or b + LETTER <= start for a, b in row) for row in taken[:-1])
    number = next((number for number, is_free in enumerate(free) if is_free), len(taken) - 1)
    taken[number].append((start, end))
    return number


def _ticks(last: float) -> NDArray[np.float64]:
    """Round numbers from 0 to the end, at least five steps of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(last / 5.0))
    step = next((factor * power for factor in (10.0, 5.0, 2.0) if last / (factor * power) >= 5.0), power)
    ticks: NDArray[np.float64] = np.arange(0.0, last + step * 1e-9, step)
    return ticks
