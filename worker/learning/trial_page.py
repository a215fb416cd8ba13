"""A trial's report as one HTML page that needs nothing but itself."""

from __future__ import annotations

import html
from typing import Any, Final

_STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c2530;background:#fff}
h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin-top:2rem}
.state{display:inline-block;padding:.1rem .6rem;border-radius:.3rem;color:#fff;font-weight:600}
.promoted{background:#1a7f4b}.aborted{background:#b3261e}.held{background:#9a6700}.running{background:#33658a}
.replaced{background:#6b7785}
table{border-collapse:collapse;margin:.6rem 0}
th,td{padding:.3rem .9rem;border-bottom:1px solid #d8dee5;text-align:right}
th:first-child,td:first-child{text-align:left}.no{color:#b3261e;font-weight:600}.yes{color:#1a7f4b}
svg{width:100%;height:auto}figcaption{color:#5b6875;font-size:.9rem}figure{margin:0}
@media print{body{margin:0;max-width:none}}
"""


def render(report: dict[str, Any]) -> str:
    """The page. Every text from outside is escaped."""
    text = html.escape
    name = text(str(report["model"]))
    rows = "".join(_rule_row(rule) for rule in report["rules"])
    decisions = _table(
        ("", "stable passes", "stable fails"),
        (
            ("new version passes", report["both_pass"], report["failed_by_stable_only"]),
            ("new version fails", report["failed_by_new_only"], report["both_fail"]),
        ),
    )
    ended = report["ended_at"] or "still running"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Trial of {name} version {report["version"]}</title><style>{_STYLE}</style></head><body>
<h1>{name}: version {report["version"]} as {text(report["channel"])}, against version {report["against"]}</h1>
<p><span class="state {text(report["state"])}">{text(report["state"])}</span> {text(report["why"])}</p>
<p>{text(report["started_at"])} to {text(ended)}; {report["frames"]} frames were judged by both versions.</p>
<h2>Rules</h2>
<table><tr><th>a trial ends where</th><th>measured</th><th>interval</th><th></th></tr>{rows}</table>
<h2>Decisions on the same frames</h2>{decisions}
<h2>p-values</h2><figure>{_histograms(report["p_values_stable"], report["p_values_new"])}
<figcaption>Share of frames a bin, from 0.0001 (left) to 1 on a log scale. Blue: stable. Orange: the new version.
</figcaption></figure>
<h2>Latency</h2><p>99th percentile from admission to verdict: stable {_ms(report["p99_stable_s"])}, new version
{_ms(report["p99_new_s"])}.</p>
<p>Digest of the new version: <code>{text(report["digest"])}</code></p>
</body></html>
"""


def _rule_row(rule: dict[str, Any]) -> str:
    said = (
        '<td class="no">broken</td>'
        if rule["broken"]
        else '<td class="yes">kept</td>'
        if rule["kept"]
        else "<td>open</td>"
    )
    interval = f"{_number(rule['low'])} … {_number(rule['high'])}"
    return f"<tr><td>{html.escape(rule['rule'])}</td><td>{_number(rule['value'])}</td><td>{interval}</td>{said}</tr>"


def _table(head: tuple[str, ...], rows: tuple[tuple[Any, ...], ...]) -> str:
    cells = "".join(f"<th>{html.escape(text)}</th>" for text in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{cells}</tr>{body}</table>"


def _histograms(stable: list[int], new: list[int]) -> str:
    width, height = 800.0, 180.0
    shares = [[count / max(1, sum(counts)) for count in counts] for counts in (stable, new)]
    top = max(max(part) for part in shares) or 1.0
    step = width / len(stable)
    bars = []
    for part, colour, shift in ((shares[0], "#33658a", 0.0), (shares[1], "#e07b39", 0.5)):
        for index, value in enumerate(part):
            tall = height * value / top
            x, y = (index + shift) * step, height - tall
            bars.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{step * 0.45:.1f}" height="{tall:.1f}" fill="{colour}"/>'
            )
    line = f'<path d="M0 {height}H{width}" stroke="#9aa5b1"/>'
    return f'<svg viewBox="0 0 {width:.0f} {height + 2:.0f}" role="img">{"".join(bars)}{line}</svg>'


def _number(value: float | None) -> str:
    return "∞" if value is None else f"{value:.4g}"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds else "not measured"
