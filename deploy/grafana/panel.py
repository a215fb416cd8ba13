"""What a dashboard is made of: panels, as data, and short words for the kinds that come again and again."""

from __future__ import annotations

from dataclasses import dataclass

L = 'line=~"$line"'
C = 'line=~"$line",camera=~"$camera"'
M = 'line=~"$line",model=~"$model"'
FRAMES_A_SECOND = "suffix: frames/s"


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        queries: (expression, legend); none for a text.
        warn, bad: thresholds; where `bad` is below `warn`, low values are the bad ones.
        book: its runbook page.
    """

    title: str
    text: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: str = "timeseries"
    warn: float | None = None
    bad: float | None = None
    book: str | None = None
    width: int = 12


@dataclass(frozen=True, slots=True)
class Page:
    """One dashboard."""

    uid: str
    title: str
    text: str
    variables: tuple[str, ...]
    panels: tuple[Panel, ...]


def stat(title: str, text: str, query: str, **more: object) -> Panel:
    """One big number a line."""
    return Panel(title, text, ((query, "{{line}}"),), kind="stat", width=6, **more)  # type: ignore[arg-type]


def graph(title: str, text: str, query: str, legend: str, unit: str = "short", **more: object) -> Panel:
    """One query over time."""
    return Panel(title, text, ((query, legend),), unit, **more)  # type: ignore[arg-type]


def age(title: str, text: str, query: str, legend: str, warn: float, bad: float, book: str) -> Panel:
    """Seconds that something is old, and when that is too old."""
    return graph(title, text, query, legend, "s", warn=warn, bad=bad, book=book)


def quantile(share: float, metric: str, labels: str, by: str = "le", over: str = "1m") -> str:
    """The expression of a histogram's quantile."""
    return f"histogram_quantile({share}, sum by ({by}) (rate({metric}_bucket{{{labels}}}[{over}])))"
