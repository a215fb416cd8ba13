"""The table of a campaign: episodes and frames by fault, and how soon everything was judged."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from rich.table import Table

from tests.faults.plan import FAULTS


def rows(results: Sequence[dict[str, Any]]) -> Iterable[tuple[str, ...]]:
    """One row a fault, alone and mixed, and one for all: texts."""
    for name in FAULTS:
        own = [line for line in results if name in line["faults"]]
        if own:
            alone = sum(len(line["faults"]) == 1 for line in own)
            yield name, str(alone), str(len(own) - alone), *_numbers(own)
    yield "all", str(sum(len(line["faults"]) == 1 for line in results)), _mixed(results), *_numbers(results)


def _mixed(results: Sequence[dict[str, Any]]) -> str:
    return str(sum(len(line["faults"]) > 1 for line in results))


def _numbers(own: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    settled = [line["settled_s"] for line in own]
    found = sum(bool(line["broken"]) for line in own)
    return (
        str(sum(line["admitted"] for line in own)),
        str(_count(own, "lost")),
        str(_count(own, "doubled")),
        str(found),
        f"{statistics.median(settled):.2f}" if settled else "-",
        f"{max(settled):.2f}" if settled else "-",
    )


def _count(own: Sequence[dict[str, Any]], kind: str) -> int:
    return sum(line["counts"].get(kind, 0) for line in own)


HEAD = ("fault", "alone", "mixed", "frames", "lost", "doubled", "findings", "settled s, median", "most")


def notes(results: Sequence[dict[str, Any]]) -> Iterable[str]:
    """What the rows do not say: how soon it went on, and what power cuts took."""
    for name, key in (("killed worker's frames judged after", "recovered_s"), ("first verdict after", "restarted_s")):
        values = sorted(value for line in results for value in line[key])
        if values:
            yield f"{name}: median {statistics.median(values):.2f} s, most {values[-1]:.2f} s ({len(values)} times)"
    cuts = sum(line["power_cuts"] for line in results)
    if cuts:
        yield f"power cuts: {cuts}"
    for name, key in (
        ("lost frames were admitted", "lost_within_s"),
        ("doubled ones first judged", "doubled_within_s"),
    ):
        within = [line[key] for line in results if line[key] is not None]
        if within:
            yield f"{name} within {max(within):.2f} s of a power cut ({len(within)} episodes)"


def table(results: Sequence[dict[str, Any]]) -> Table:
    """For a terminal."""
    shown = Table(title="fault episodes", caption="\n".join(notes(results)))
    for name in HEAD:
        shown.add_column(name, justify="left" if name == "fault" else "right")
    for row in rows(results):
        shown.add_row(*row)
    return shown


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """For a page."""
    lines = ["| " + " | ".join(HEAD) + " |", "|---|" + "---:|" * (len(HEAD) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in rows(results)]
    lines += ["", *(f"- {note}" for note in notes(results))]
    return "\n".join(lines) + "\n"
