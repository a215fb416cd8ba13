"""An evaluation as one HTML file that needs nothing else: no network, no script, no font; fit for print and archive."""

from __future__ import annotations

import base64
import io
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from gaussline.worker.contract.regions import level_names
from gaussline.worker.gaussian.combination import Rule
from gaussline.worker.learning import plots
from gaussline.worker.learning.assessment import Assessed, Evaluation, Example
from gaussline.worker.learning.result_table import ResultTable, shown

TEMPLATE = Path(__file__).with_name("report.html")
GROUPS = {
    "missed": ("Defects that look most normal", "Their scores are the lowest of all defective images."),
    "alarming": ("Good parts that look most defective", "Their scores are the highest of all normal test images."),
    "clear": ("Defects that stand out the most", "Their scores are the highest."),
    "calm": ("Good parts that look most normal", "Their scores are the lowest."),
}
SCALES = {"missed": ("missed",), "alarming": ("alarming", "calm"), "clear": ("clear",), "calm": ("alarming", "calm")}
"""Groups whose maps a group shares its scale with: beside defects that stand out ten times as far, what little a missed
one adds would not be seen; and good parts are to be seen as calm as they are."""
JPEG_QUALITY = 88


def html_report(result: Evaluation) -> str:
    """The whole report as text."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["shown"] = shown
    rule = result.options.fit.rule.value
    page: str = environment.from_string(TEMPLATE.read_text("utf-8")).render(
        version=version("gaussline"),
        spec=result.spec,
        options=result.options,
        rule=rule,
        means=[_table(table) for table in result.means],
        categories=[_category(category, rule, level_names(result.spec.levels)) for category in result.categories],
        warnings=[(category.name, text) for category in result.categories for text in category.warnings],
        overview=_overview(result),
    )
    return page


def _overview(result: Evaluation) -> list[dict[str, Any]]:
    rule = result.options.fit.rule.value
    rows = []
    for category in result.categories:
        row = category.table("levels").row(rule)
        rows.append(
            {
                "name": category.name,
                "normal": len(category.category.data.normal),
                "defective": len(category.category.data.defective),
                "auroc": shown(row["AUROC"]),
                "interval": f"{row['AUROC, low']:.3f} … {row['AUROC, high']:.3f}",
                "precision": shown(row["average precision"]),
                "tpr_at_1": shown(row["TPR at 1 % FPR"]),
                "tpr_at_5": shown(row["TPR at 5 % FPR"]),
            }
        )
    return rows


def _category(category: Assessed, rule: str, levels: tuple[str, ...]) -> dict[str, Any]:
    run = category.runs[0]
    combined = run.combined()
    table = category.table("levels")
    best = max(range(len(levels)), key=lambda index: _number(table.row(levels[index])["AUROC"]))
    level = run.column(best)
    dots = []
    for row in table.rows:
        told = table.row(str(row[0]))
        value, low, high = (_number(told[name]) for name in ("AUROC", "AUROC, low", "AUROC, high"))
        dots.append((str(row[0]), value, low, high))
    sources = {
        "histogram": plots.histogram(combined.normal, combined.defective, f"score ({rule} over levels)"),
        "roc": plots.roc(
            [
                ("first", f"{rule} over levels", combined.normal, combined.defective),
                ("second", levels[best], level.normal, level.defective),
            ]
        ),
        "levels": plots.intervals(dots, "AUROC"),
        "contributions": plots.contributions(levels, run.normal, run.defective),
    }
    return {
        "name": category.name,
        "normal": len(category.category.data.normal),
        "defective": len(category.category.data.defective),
        "runs": len(category.runs),
        "plan": run.plan,
        "best_level": levels[best],
        # The plots escape what they are given; everything else in the page is escaped by the template.
        "plots": {name: Markup(source) for name, source in sources.items()},
        "tables": [_table(one) for one in category.tables],
        "groups": _groups(category.examples),
        "skipped": category.category.skipped,
    }


def _groups(examples: tuple[Example, ...]) -> list[dict[str, Any]]:
    """The images by group. Maps that are to be compared share a colour scale; see `SCALES`."""
    if not examples:
        return []
    strongest = {one: float(np.percentile(np.abs(one.explained.map.combined), 99.5)) for one in examples}
    found = []
    for group, (title, note) in GROUPS.items():
        scale = max((strongest[one] for one in examples if one.group in SCALES[group]), default=0.0) or 1.0
        images = [_image(one, scale) for one in examples if one.group == group]
        found.append({"title": title, "note": note, "images": images})
    return found


def _image(example: Example, scale: float) -> dict[str, Any]:
    one = example.explained
    overlay = np.asarray(Image.open(io.BytesIO(one.map.to_png(one.image, full_scale=scale)), formats=["PNG"]))
    return {
        "file": one.sample.path.name,
        "defect": one.sample.defect,
        "score": shown(example.score),
        "image": _data_uri(one.image),
        "overlay": _data_uri(overlay),
    }


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _table(table: ResultTable) -> dict[str, Any]:
    """A table whose intervals and errors stand in the cell of their value."""
    places = [index for index, column in enumerate(table.columns) if ", " not in column or column.endswith("runs")]
    header = [table.columns[index] for index in places]
    rows = []
    for row in table.rows:
        cells = []
        for index in places:
            values = dict(zip(table.columns, row, strict=True))
            name = table.columns[index]
            low, high, error = (values.get(f"{name}, {word}") for word in ("low", "high", "± s.e."))
            extra = ""
            if isinstance(low, float) and isinstance(high, float):
                extra = f"{low:.3f} … {high:.3f}"
            elif isinstance(error, float):
                extra = f"± {shown(error)}"
            cells.append({"text": shown(row[index]), "extra": extra})
        combined = str(row[0]) in {rule.value for rule in Rule}
        rows.append({"cells": cells, "strong": combined and table.name == "levels"})
    return {"name": table.name, "title": table.title, "note": table.note, "header": header, "rows": rows}


def _number(cell: Any) -> float:
    return float(cell)
