"""An evaluation on the terminal and as CSV."""

from __future__ import annotations

import csv
import io

from rich.console import Console
from rich.table import Table

from gaussline.worker.learning.assessment import Evaluation
from gaussline.worker.learning.result_table import Cell, ResultTable, csv_rows, shown


def print_evaluation(console: Console, result: Evaluation) -> None:
    """All tables, each category's after the other, the means over categories last."""
    for category in result.categories:
        runs = len(category.runs)
        data = category.category.data
        first = category.runs[0].plan
        console.rule(f"[bold]{category.name}")
        console.print(
            f"{len(data.normal)} normal and {len(data.defective)} defective images; "
            f"{runs} {'run' if runs == 1 else 'runs'}, the first fitted on {first.train.size} and scored on "
            f"{first.normal.size} normal images",
            highlight=False,
        )
        for table in category.tables:
            _print(console, table, result.options.fit.rule.value)
    if result.means:
        console.rule(f"[bold]all {len(result.categories)} categories")
    for table in result.means:
        _print(console, table, result.options.fit.rule.value)


def csv_text(result: Evaluation) -> str:
    """Every number of every table."""
    file = io.StringIO()
    tables = {category.name: category.tables for category in result.categories}
    csv.writer(file, lineterminator="\n").writerows(csv_rows({**tables, "*": result.means} if result.means else tables))
    return file.getvalue()


def _print(console: Console, table: ResultTable, bold: str) -> None:
    """One table; a value and its interval share a cell."""
    shape = Table(title=table.title, caption=table.note or None, caption_justify="left")
    groups = _groups(table.columns)
    for index, (name, _) in enumerate(groups):
        shape.add_column(name, justify="right" if index else "left")
    for row in table.rows:
        cells = [_cell([row[place] for place in places]) for _, places in groups]
        shape.add_row(*([f"[bold]{cell}[/]" for cell in cells] if row[0] == bold else cells))
    console.print(shape)


def _groups(columns: tuple[str, ...]) -> list[tuple[str, list[int]]]:
    """Columns with the places of their own value and of what goes with it."""
    groups: list[tuple[str, list[int]]] = []
    for index, column in enumerate(columns):
        base = column.rpartition(", ")[0]
        if groups and base == groups[-1][0]:
            groups[-1][1].append(index)
        else:
            groups.append((column, [index]))
    return groups


def _cell(values: list[Cell]) -> str:
    if len(values) == 3 and all(isinstance(value, float) for value in values):
        return f"{shown(values[0])} ({values[1]:.3f} … {values[2]:.3f})"
    if len(values) == 2:
        return f"{shown(values[0])} ± {shown(values[1])}"
    return shown(values[0])
