"""The runbooks of docs/operations.md as one more dashboard: a link from a panel leads there without leaving Grafana."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from panel import Page, Panel

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
UID = "gaussline-runbooks"
_LINK = re.compile(r"\[([^]]*)\]\(([^)]*)\)")


def runbooks() -> Page:
    """A panel for each runbook, in the page's order."""
    text = "What each alert means, where to look first, and what to do."
    panels = (Panel(name, _linked(body), (), kind="text") for name, body in _sections().items())
    return Page(UID, "gaussline: runbooks", text, (), tuple(panels))


def place(book: str) -> str:
    """Where Grafana shows a runbook. Raises KeyError where there is none."""
    return f"/d/{UID}?viewPanel={_places()[book]}"


@cache
def _sections() -> dict[str, str]:
    """Text by name, of those sections that are runbooks."""
    parts = (part.partition("\n") for part in OPERATIONS.read_text("utf-8").split("\n## "))
    return {name: body.strip() for name, _, body in parts if body.startswith("**Means**")}


@cache
def _places() -> dict[str, int]:
    return {name: number for number, name in enumerate(_sections(), 1)}


def _linked(body: str) -> str:
    """Links between runbooks lead on within Grafana; of others the name of the page remains."""

    def instead(found: re.Match[str]) -> str:
        text, target = found[1], found[2]
        if target.startswith("#"):
            return f"[{text}]({place(target[1:])})"
        return f"{text} (docs/{target})"

    # A line of its own for each part: markdown would join them.
    return _LINK.sub(instead, body).replace("\n**", "\n\n**")
