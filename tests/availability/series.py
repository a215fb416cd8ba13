"""`python -m tests.faults --topology sentinel|cluster`: failovers by the dozen, without and with WAIT, in a table."""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from gaussline.worker.broker.replication import NO_WAITING, Waiting
from tests.availability.drill import CUT_S, FAULTS, LAG_S, Drill

WAITS: Final = {"without": NO_WAITING, "with": Waiting(1, 0.5), "all": Waiting(2, 0.5)}
"""What producers, workers and subscribers ask for: nothing, one of the two replicas, or both."""
SLACK_S: Final = 0.5
"""Beyond the window of the settings: how late a loop of Redis, a signal or this machine may be."""
WINDOW_S: Final = {
    "kill": SLACK_S,
    "lag": LAG_S + SLACK_S,
    "stop": SLACK_S,
    "cut_off": CUT_S + 1 + SLACK_S,
    "switch": SLACK_S,
}
"""How far from its fault a frame may have been admitted that is lost, without WAIT: what docs/reliability.md states."""
TOLD_LATE: Final = ("sentinel", "switch")
"""Sentinel makes one replica the master, and tells the old master and the other replica afterwards: until then those
two go on together, as if they were cut off, and one replica that has a write is no promise."""
HEAD: Final = ("fault", "WAIT", "failovers", "admitted", "lost", "doubled", "lost within s", "silent s, median", "most")


def faults_of(topology: str) -> tuple[str, ...]:
    """The nodes of a Cluster cannot be told to lose one another on one machine."""
    return tuple(name for name in FAULTS if topology == "sentinel" or name != "cut_off")


def problems(line: dict[str, Any]) -> list[str]:
    """What breaks the promises of docs/reliability.md in one row."""
    found = list(line["wrong"])
    told_late = (line["topology"], line["fault"]) == TOLD_LATE
    held = line["wait"] == "all" if told_late else line["wait"] != "without"
    if held and (line["lost"] or line["doubled"]):
        found.append(f"with WAIT {line['lost']} frames were lost and {line['doubled']} doubled")
    if line["lost"] and line["lost_within_s"] > WINDOW_S["cut_off" if told_late else line["fault"]]:
        found.append(f"a lost frame was admitted {line['lost_within_s']:.2f} s from the fault")
    return found


def run(options: argparse.Namespace) -> int:
    """The series of one topology; the exit code."""
    console = Console(width=118)
    rows: list[dict[str, Any]] = []
    chosen = [name for name in options.faults.split(",") if name] or list(faults_of(options.topology))
    todo = [
        (fault, wait)
        for fault in chosen
        for wait in WAITS
        # Both replicas are there at a switch alone: else the line would stand still until the old master is back.
        if options.wait in ("", wait) and (wait != "all" or (options.topology, fault) == TOLD_LATE)
    ]
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    begin = time.monotonic()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with Progress(*columns, console=console) as progress, options.output.open("w", encoding="utf-8") as file:
        task = progress.add_task("failovers", total=len(todo) * options.failovers)
        for fault, wait in todo:
            row = one(options.topology, fault, wait, options.failovers, lambda: progress.advance(task))
            rows.append(row)
            file.write(json.dumps(row) + "\n")
            file.flush()
            for problem in problems(row):
                progress.console.print(f"{fault}, {wait} WAIT: {problem}", markup=False, highlight=False)
    console.print(table(rows, f"failovers of a {options.topology} set"))
    options.output.with_suffix(".md").write_text(markdown(rows), "utf-8")
    console.print(f"{time.monotonic() - begin:.0f} s; one JSON line a row in {options.output}", highlight=False)
    return 1 if any(problems(row) for row in rows) else 0


def one(topology: str, fault: str, wait: str, failovers: int, done: Any) -> dict[str, Any]:
    """Failovers of one kind on one line: a row."""
    with (
        tempfile.TemporaryDirectory(prefix="gaussline-drill-") as folder,
        Drill(topology, Path(folder), waiting=WAITS[wait]) as drill,
    ):
        for _ in range(failovers):
            drill.fail_over(fault)
            done()
        tally = drill.settle()
    return {"topology": topology, "fault": fault, "wait": wait, **asdict(tally)}


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row as texts."""
    silent = [failover["silent_s"] for failover in row["failovers"]]
    return (
        row["fault"],
        row["wait"],
        str(len(silent)),
        str(row["admitted"]),
        str(row["lost"]),
        str(row["doubled"]),
        f"{row['lost_within_s']:.2f}" if row["lost"] else "-",
        f"{statistics.median(silent):.2f}",
        f"{max(silent):.2f}",
    )


def table(rows: list[dict[str, Any]], title: str) -> Table:
    """For a terminal."""
    shown = Table(title=title)
    for name in HEAD:
        shown.add_column(name, justify="left" if name in HEAD[:2] else "right")
    for row in rows:
        shown.add_row(*cells(row))
    return shown


def markdown(rows: list[dict[str, Any]]) -> str:
    """For a page."""
    lines = ["| " + " | ".join(HEAD) + " |", "|---|---|" + "---:|" * (len(HEAD) - 2)]
    return "\n".join([*lines, *("| " + " | ".join(cells(row)) + " |" for row in rows)]) + "\n"
