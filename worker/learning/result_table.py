"""A table of results in one form for the terminal, JSON, CSV and HTML; and the mean of such tables over categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Cell = str | float | int | None


@dataclass(frozen=True, slots=True)
class ResultTable:
    """Rows of cells under named columns; the first column names the row.

    Attributes:
        name: for machines, such as `levels`.
        note: how to read it; one or two sentences.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: list[list[Cell]]
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: rows as maps from column to cell."""
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return {"title": self.title, "note": self.note, "rows": rows}

    def row(self, name: str) -> dict[str, Cell]:
        """The row of a name. Raises KeyError."""
        for row in self.rows:
            if row[0] == name:
                return dict(zip(self.columns, row, strict=True))
        raise KeyError(name)


def shown(cell: Cell) -> str:
    """A cell for people: four decimals, fewer where a number is large, a power of ten where it is tiny."""
    if cell is None:
        return "–"
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int):
        return f"{cell:,}"
    if cell and abs(cell) < 1e-4:
        return f"{cell:.2g}"
    return f"{cell:.4f}" if abs(cell) < 10 else f"{cell:,.1f}"


def over_categories(tables: Mapping[str, ResultTable]) -> ResultTable | None:
    """Mean and standard error over categories of tables with the same rows; None where fewer than two share them all.

    The paper's way: the mean over folds is a category's number; then mean ± standard error over categories. Intervals
    and spreads of a single category have no mean, and are left out.
    """
    first = next(iter(tables.values()))
    names = [row[0] for row in first.rows]
    if len(tables) < 2 or any([row[0] for row in table.rows] != names for table in tables.values()):
        return None
    keep = [
        index
        for index, column in enumerate(first.columns)
        if index and not column.endswith((", low", ", high", ", spread over runs")) and _numbers(first.rows, index)
    ]
    header = [first.columns[0]]
    for index in keep:
        header += [first.columns[index], f"{first.columns[index]}, ± s.e."]
    rows: list[list[Cell]] = []
    for number, name in enumerate(names):
        row: list[Cell] = [name]
        for index in keep:
            cells = [table.rows[number][index] for table in tables.values()]
            values = np.array([cell for cell in cells if isinstance(cell, int | float)], np.float64)
            mean = float(values.mean()) if values.size else None
            error = float(values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else None
            row += [mean, error]
        rows.append(row)
    note = f"Mean over {len(tables)} categories ± standard error."
    return ResultTable(first.name, f"{first.title}: all categories", tuple(header), rows, note)


def csv_rows(tables: Mapping[str, Sequence[ResultTable]]) -> list[list[str]]:
    """All tables of all categories in one long form: category, table, row, column, value."""
    lines = [["category", "table", "row", "column", "value"]]
    for category, own in tables.items():
        for table in own:
            for row in table.rows:
                for column, cell in zip(table.columns[1:], row[1:], strict=True):
                    value = "" if cell is None else repr(cell) if isinstance(cell, float) else str(cell)
                    lines.append([category, table.name, str(row[0]), column, value])
    return lines


def _numbers(rows: list[list[Cell]], index: int) -> bool:
    return any(isinstance(row[index], int | float) for row in rows)
