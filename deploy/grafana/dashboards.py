"""The Grafana dashboards, as code: python deploy/grafana/dashboards.py writes the JSON files beside it.

A test holds the files to this code, every expression to a metric that exists, and every panel to a running line.
"""

from __future__ import annotations

import sys
from pathlib import Path
from string import ascii_uppercase

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, text, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueGraphMode,
    GraphTresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
)
from grafana_foundation_sdk.models.text import TextMode
from pages import PAGES
from panel import Page, Panel
from runbooks import place, runbooks

HERE = Path(__file__).parent
ALL = (*PAGES, runbooks())
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
    for number, panel in enumerate(page.panels, 1):
        made = made.with_panel(_panel(panel).id(number))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def _panel(panel: Panel) -> stat.Panel | text.Panel | timeseries.Panel:
    if panel.kind == "text":
        written = text.Panel().title(panel.title).mode(TextMode.MARKDOWN).content(panel.text)
        return written.span(panel.width).height(10)
    base: stat.Panel | timeseries.Panel
    if panel.kind == "stat":
        newest = common.ReduceDataOptions().calcs(["lastNotNull"])
        base = stat.Panel().graph_mode(BigValueGraphMode.AREA).reduce_options(newest)
    else:
        legend = common.VizLegendOptions().show_legend(True).placement(LegendPlacement.BOTTOM)
        tooltip = common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
        base = timeseries.Panel().fill_opacity(8).line_width(2).tooltip(tooltip)
        base = base.legend(legend.display_mode(LegendDisplayMode.LIST))
    base = base.title(panel.title).description(panel.text).unit(panel.unit).datasource(SOURCE)
    base = base.span(panel.width).height(5 if panel.kind == "stat" else 8).min(0.0)
    if panel.warn is not None and panel.bad is not None:
        base = base.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(_steps(panel)))
        if isinstance(base, timeseries.Panel):  # which shows none unless it is told how
            base = base.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphTresholdsStyleMode.DASHED))
    if panel.book is not None:
        link = dashboard.DashboardLink("Runbook").type(DashboardLinkType.LINK).url(place(panel.book))
        base = base.links([link.target_blank(True)])
    for letter, (query, legend_format) in zip(ascii_uppercase, panel.queries, strict=False):
        base = base.with_target(prometheus.Dataquery().expr(query).legend_format(legend_format).ref_id(letter))
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
    for page in ALL:
        (HERE / f"{page.uid}.json").write_text(build(page), "utf-8")
        print(f"{page.uid}.json: {len(page.panels)} panels")
    return 0


if __name__ == "__main__":
    sys.exit(main())
