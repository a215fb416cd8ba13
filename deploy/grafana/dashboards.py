"""The Grafana dashboards, as code: python deploy/grafana/dashboards.py writes the JSON files beside it.

A test holds the files to this code, every expression to a metric that exists, and every panel to a running line.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueGraphMode
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
)

HERE = Path(__file__).parent
RUNBOOKS = "docs/operations.md"
SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
ADMISSION = "gaussline_admission_to_verdict_seconds"
BATCH = "gaussline_batch_frames"
LOAD = "gaussline_model_load_seconds"
L = 'line=~"$line"'
C = 'line=~"$line",camera=~"$camera"'
M = 'line=~"$line",model=~"$model"'


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        queries: (expression, legend).
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


def _stat(title: str, text: str, query: str, **more: object) -> Panel:
    return Panel(title, text, ((query, "{{line}}"),), kind="stat", width=6, **more)  # type: ignore[arg-type]


LINE = Page(
    "gaussline-line",
    "gaussline: line",
    "Is every part judged? How fast? What fails?",
    ("line", "camera"),
    (
        _stat(
            "Workers",
            "Workers whose heart beats.",
            f"gaussline_line_workers{{{L}}}",
            warn=1.0,
            bad=0.5,
            book="no-worker",
        ),
        _stat(
            "Off the ledger",
            "Admitted less judged, not judged and in flight: anything but 0 is a fault.",
            f"sum by (line) (abs(gaussline_line_imbalance_frames{{{L}}}))",
            warn=1.0,
            bad=1.0,
            book="ledger-imbalance",
        ),
        _stat(
            "Oldest frame without a verdict",
            "Age of the oldest frame in flight.",
            f"max by (line) (gaussline_line_backlog_age_seconds{{{L}}})",
            unit="s",
            warn=2.0,
            bad=10.0,
            book="backlog-age",
        ),
        _stat(
            "Redis's memory",
            "Share of maxmemory in use.",
            f"gaussline_line_redis_memory_bytes{{{L}}} / (gaussline_line_redis_max_memory_bytes{{{L}}} > 0)",
            unit="percentunit",
            warn=0.7,
            bad=0.85,
            book="redis-memory",
        ),
        Panel(
            "Frames by decision",
            "Verdicts a second.",
            ((f"sum by (decision) (rate(gaussline_line_verdicts_total{{{C}}}[1m]))", "{{decision}}"),),
            "reqps",
        ),
        Panel(
            "Admitted and dropped",
            "Frames a second that came in, and that a producer dropped by its policy.",
            (
                (f"sum(rate(gaussline_line_admitted_frames_total{{{C}}}[1m]))", "admitted"),
                (f"sum(rate(gaussline_line_dropped_frames_total{{{C}}}[1m]))", "dropped"),
                (f"sum(rate(gaussline_line_busy_answers_total{{{C}}}[1m]))", "busy answers"),
            ),
            "reqps",
        ),
        Panel(
            "Admission to verdict",
            "Both by Redis's clock.",
            tuple(
                (
                    f"histogram_quantile({q}, sum by (le) (rate({ADMISSION}_bucket{{{L}}}[1m])))",
                    f"p{int(100 * q)}",
                )
                for q in (0.5, 0.99)
            ),
            "s",
            warn=0.25,
            bad=1.0,
            book="latency",
        ),
        Panel(
            "Failed share by camera",
            "Over two minutes.",
            ((f"gaussline:failed_share:2m{{{C}}}", "{{camera}}"),),
            "percentunit",
            warn=0.05,
            bad=0.2,
            book="defect-burst",
        ),
        Panel(
            "Backlog by camera",
            "Encoded bytes without a verdict.",
            ((f"gaussline_line_backlog_bytes{{{C}}}", "{{camera}}"),),
            "bytes",
            book="backlog-age",
        ),
        Panel(
            "Silence by camera",
            "Time since a frame was last admitted.",
            ((f"gaussline_line_silence_seconds{{{C}}}", "{{camera}}"),),
            "s",
            warn=10.0,
            bad=30.0,
            book="camera-silent",
        ),
        Panel(
            "Dead letters",
            "Frames an hour, by reason.",
            ((f"sum by (reason) (increase(gaussline_line_dead_letter_frames_total{{{L}}}[1h]))", "{{reason}}"),),
            book="dead-letters",
        ),
        Panel(
            "Subscribers behind",
            "Age of the oldest verdict that a subscriber has not acknowledged.",
            ((f"gaussline_line_subscriber_lag_seconds{{{L}}}", "{{subscriber}}"),),
            "s",
            warn=60.0,
            bad=300.0,
            book="subscriber-lag",
        ),
    ),
)

WORKERS = Page(
    "gaussline-workers",
    "gaussline: workers",
    "What workers spend their time on.",
    ("line",),
    (
        Panel(
            "Device busy",
            "Share of the time that the device computed.",
            ((f"gaussline:device_busy_share:5m{{{L}}}", "{{line}}"),),
            "percentunit",
        ),
        Panel(
            "Stages",
            "99th percentile of one turn of a stage.",
            (
                (
                    f"histogram_quantile(0.99, sum by (stage, le) (rate(gaussline_stage_seconds_bucket{{{L}}}[1m])))",
                    "{{stage}}",
                ),
            ),
            "s",
        ),
        Panel(
            "Batch size",
            "Mean frames of one backbone pass.",
            (
                (
                    f"sum(rate({BATCH}_sum{{{L}}}[1m])) / sum(rate({BATCH}_count{{{L}}}[1m]))",
                    "frames",
                ),
            ),
        ),
        Panel(
            "Taken",
            "Encoded bytes a second.",
            ((f"sum by (instance) (rate(gaussline_taken_bytes_total{{{L}}}[1m]))", "{{instance}}"),),
            "Bps",
        ),
        Panel(
            "Held",
            "Encoded bytes taken and not yet settled.",
            ((f"sum by (instance) (gaussline_held_bytes{{{L}}})", "{{instance}}"),),
            "bytes",
        ),
        Panel(
            "Redelivered",
            "Messages claimed from other workers.",
            ((f"sum by (cause) (rate(gaussline_redelivered_messages_total{{{L}}}[5m]))", "{{cause}}"),),
            book="pending-age",
        ),
        Panel(
            "Pending by camera",
            "Age of the oldest message in a worker's hands.",
            ((f"gaussline_line_pending_age_seconds{{{L}}}", "{{camera}}"),),
            "s",
            warn=10.0,
            bad=30.0,
            book="pending-age",
        ),
    ),
)

MODELS = Page(
    "gaussline-models",
    "gaussline: models and roll-out",
    "Which version judges, and whether it keeps its word.",
    ("line", "model"),
    (
        Panel(
            "Versions",
            "Where each channel points.",
            ((f"gaussline_line_model_version{{{M}}}", "{{model}}/{{channel}}"),),
        ),
        Panel(
            "Versions by worker",
            "Workers that score with a version.",
            (
                (
                    f"count by (model, channel, version) (gaussline_model_version_info{{{M}}})",
                    "{{model}}/{{channel}} {{version}}",
                ),
            ),
            book="version-skew",
        ),
        Panel(
            "Stale workers",
            "Living workers that judge by another version than stable.",
            ((f"gaussline_line_stale_workers{{{M}}}", "{{model}}"),),
            warn=1.0,
            bad=1.0,
            book="version-skew",
        ),
        Panel(
            "Refusing workers",
            "Living workers that cannot load the stable version.",
            ((f"gaussline_line_refusing_workers{{{M}}}", "{{model}}"),),
            warn=1.0,
            bad=1.0,
            book="model-load-failure",
        ),
        Panel(
            "Failed share against the stated rate",
            "The failed share holds true defects too: look at it beside what the line usually shows.",
            (
                (f"gaussline:failed_share:30m{{{L}}}", "failed share, 30 minutes"),
                (f"gaussline_line_stated_false_positive_rate{{{M}}}", "stated rate of {{model}}"),
            ),
            "percentunit",
            book="false-positive-drift",
        ),
        Panel(
            "Loading a model",
            "Mean time to fetch, check and warm up.",
            (
                (
                    f"sum by (model) ({LOAD}_sum{{{M}}}) / sum by (model) ({LOAD}_count{{{M}}})",
                    "{{model}}",
                ),
            ),
            "s",
        ),
    ),
)
PAGES: Sequence[Page] = (LINE, WORKERS, MODELS)
VARIABLES = {
    "line": ("Line", "label_values(gaussline_line_up, line)"),
    "camera": ("Camera", 'label_values(gaussline_line_admitted_frames_total{line=~"$line"}, camera)'),
    "model": ("Model", 'label_values(gaussline_line_model_version{line=~"$line"}, model)'),
}


def build(page: Page) -> str:
    """A dashboard as Grafana reads it from a file."""
    made = (
        dashboard.Dashboard(page.title)
        .uid(page.uid)
        .description(page.text)
        .tags(["gaussline"])
        .refresh("5s")
        .time("now-30m", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(
            dashboard.DashboardLink("gaussline")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["gaussline"])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
        .with_variable(dashboard.DatasourceVariable("source").label("Prometheus").type("prometheus"))
    )
    for name in page.variables:
        label, query = VARIABLES[name]
        made = made.with_variable(
            dashboard.QueryVariable(name)
            .label(label)
            .query(query)
            .datasource(SOURCE)
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        )
    for panel in page.panels:
        made = made.with_panel(_panel(panel))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def _panel(panel: Panel) -> stat.Panel | timeseries.Panel:
    base: stat.Panel | timeseries.Panel
    if panel.kind == "stat":
        base = stat.Panel().graph_mode(BigValueGraphMode.AREA)
    else:
        base = timeseries.Panel().fill_opacity(8).line_width(2)
    base = base.title(panel.title).description(panel.text).unit(panel.unit).datasource(SOURCE)
    base = base.span(panel.width).height(5 if panel.kind == "stat" else 8).min(0.0)
    if panel.warn is not None and panel.bad is not None:
        base = base.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(_steps(panel)))
    if panel.book is not None:
        link = dashboard.DashboardLink("Runbook").type(DashboardLinkType.LINK).url(f"{RUNBOOKS}#{panel.book}")
        base = base.links([link])
    for query, legend in panel.queries:
        base = base.with_target(prometheus.Dataquery().expr(query).legend_format(legend))
    return base


def _steps(panel: Panel) -> list[Threshold]:
    assert panel.warn is not None
    assert panel.bad is not None
    if panel.bad < panel.warn:
        return [Threshold(value=None, color="red"), Threshold(value=panel.bad, color="green")]
    steps = [Threshold(value=None, color="green"), Threshold(value=panel.warn, color="orange")]
    return (
        [*steps, Threshold(value=panel.bad, color="red")]
        if panel.bad > panel.warn
        else [
            steps[0],
            Threshold(value=panel.bad, color="red"),
        ]
    )


def main() -> int:
    """Write every dashboard."""
    for page in PAGES:
        (HERE / f"{page.uid}.json").write_text(build(page), "utf-8")
        print(f"{page.uid}.json: {len(page.panels)} panels")
    return 0


if __name__ == "__main__":
    sys.exit(main())
