"""The Grafana dashboards, as code: python deploy/grafana/dashboards.py writes the JSON files beside it.

A test holds the files to this code, every expression to a metric that exists, and every panel to a running line.
"""

from __future__ import annotations

import sys
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
from pages import PAGES, Page, Panel

HERE = Path(__file__).parent
RUNBOOKS = "docs/operations.md"
SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
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
