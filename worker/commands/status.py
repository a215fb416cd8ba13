"""`gaussline status`: a whole line on one screen."""

from __future__ import annotations

import io
import json
import re
import threading
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console, Group, JustifyMethod
from rich.constrain import Constrain
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gaussline.worker.broker.ledger import LedgerRow
from gaussline.worker.broker.line_state import LineReader, LineState, WorkerState
from gaussline.worker.broker.verdicts import Verdicts
from gaussline.worker.commands.console import err, out
from gaussline.worker.commands.mistakes import IMBALANCE
from gaussline.worker.commands.options import Json, Line, RedisUrl, open_line, write_file
from gaussline.worker.commands.signals import on_signals
from gaussline.worker.contract.keys import MAIN
from gaussline.worker.errors import BrokerError

EPILOG = """\b
Examples:
  gaussline status
  gaussline status --once --json | jq .cameras
  gaussline status --svg status.svg                       (a picture of the screen, for a report)

With --once it exits with 5 where the ledger does not balance."""
FAILED_SHOWN = 5
ALARMS_SHOWN = 4
WIDEST = 130
"""Columns; on a wider terminal the eye would lose the row."""
LOOKED_AT = 400
"""Newest verdicts that are searched for failed frames."""
OLD_S = 10.0
BESIDE_CAMERAS = 22
"""Lines of a full screen that are not cameras."""
LEAST_CAMERAS = 5


def status(
    once: Annotated[bool, typer.Option("--once", help="Print once and end.")] = False,
    every: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.2)] = 1.0,
    svg: Annotated[Path | None, typer.Option(help="Write the screen into this file, as a picture, and end.")] = None,
    redis_url: RedisUrl = None,
    line: Line = None,
    as_json: Json = False,
) -> None:
    """The line, live: cameras and rates, backlog, workers and versions, trials, learners and drift, failed frames."""
    opened = open_line(redis_url, line)
    look = _Look(LineReader(opened.client, opened.line), Verdicts(opened.client, opened.line))
    if svg is not None:
        look.now()
        threading.Event().wait(every)  # rates are told by two looks
        write_file(svg, picture(look, f"gaussline status of line {opened.line}").encode())
        return
    if once or as_json:
        state, failed = look.now()
        if as_json:
            out().print_json(json.dumps(status_dict(state, look.rates, failed)))
        else:
            out().print(screen(state, look.rates, failed))
        if not state.ledger.balances:
            raise typer.Exit(IMBALANCE)
        return
    stopping = threading.Event()
    with (
        on_signals(lambda _: stopping.set(), lambda _: stopping.set()),
        Live(console=out(), screen=out().is_terminal, auto_refresh=False) as live,
    ):
        while not stopping.is_set():
            try:
                state, failed = look.now()
                shown = max(LEAST_CAMERAS, live.console.height - BESIDE_CAMERAS)
                live.update(screen(state, look.rates, failed, shown), refresh=True)
            except BrokerError as error:
                live.update(Text(f"{error}; trying again", style="red"), refresh=True)
            stopping.wait(every)
    err().print("ended", highlight=False)


class _Look:
    """Looks at a line again and again, and knows what changed between two looks."""

    def __init__(self, reader: LineReader, verdicts: Verdicts) -> None:
        self._reader = reader
        self._verdicts = verdicts
        self._before: LineState | None = None
        self.rates: dict[str, float] = {}

    def now(self) -> tuple[LineState, list[dict[str, Any]]]:
        state = self._reader.read()
        if self._before is not None:
            seconds = max(1e-3, (state.ledger.now_us - self._before.ledger.now_us) / 1e6)
            judged = {row.camera: row.judged + row.not_judged for row in self._before.ledger.rows}
            self.rates = {
                row.camera: (row.judged + row.not_judged - judged.get(row.camera, 0)) / seconds
                for row in state.ledger.rows
            }
        self._before = state
        newest = self._verdicts.newest(LOOKED_AT)
        return state, [verdict for verdict in newest if verdict["decision"] == "fail"][:FAILED_SHOWN]


def picture(look: _Look, title: str) -> str:
    """The screen as an SVG."""
    console = Console(record=True, file=io.StringIO(), width=WIDEST, force_terminal=True)
    state, failed = look.now()
    console.print(screen(state, look.rates, failed))
    # Whoever looks at the picture loads no font from anywhere.
    return re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title=title), flags=re.DOTALL)


def screen(
    state: LineState, rates: dict[str, float], failed: list[dict[str, Any]], cameras: int | None = None
) -> Constrain:
    """Everything on one screen; of more than so many cameras those that need a look."""
    parts: list[Any] = [_headline(state), _cameras(state, rates, cameras), _workers(state)]
    if any(pointer.channel != "stable" for pointer in state.pointers) or state.pins:
        parts.append(_rollout(state))
    if state.learners:
        parts.append(_learners(state))
    if failed:
        parts.append(_failed(failed))
    return Constrain(Group(*parts), WIDEST)


def status_dict(state: LineState, rates: dict[str, float], failed: list[dict[str, Any]]) -> dict[str, Any]:
    """The same, JSON-able."""
    return {
        "line": state.line,
        "balances": state.ledger.balances,
        "workers": [
            {
                "name": worker.name,
                "alive": worker.alive,
                "warm": worker.warm,
                "host": worker.host,
                "set": worker.worker_set,
                "runtime": worker.runtime,
                "models": dict(worker.models),
                "trials": dict(worker.trials),
                "refused": dict(worker.refused),
            }
            for worker in state.workers
        ],
        "cameras": [
            {
                "camera": row.camera,
                "rate": rates.get(row.camera),
                "admitted": row.admitted,
                "pass": row.passed,
                "fail": row.failed,
                "not_judged": row.not_judged,
                "in_flight": row.in_flight,
                "backlog_age_s": row.backlog_age_s,
                "pending_age_s": state.pending[row.camera].age_s,
                "silence_s": _silence_s(state, row.last_admitted_us),
                "imbalance": row.imbalance,
                "dropped": row.dropped,
            }
            for row in state.ledger.rows
        ],
        "pointers": {f"{each.model}/{each.channel}": each.version for each in state.pointers},
        "pinned": sorted(state.pins),
        "learners": [
            {
                "model": learner.model,
                "running": learner.running,
                "owner": learner.owner,
                "behind_s": learner.behind_s,
                "alarms": [{"camera": each.camera, "test": each.test, "text": each.text} for each in learner.alarms],
            }
            for learner in state.learners
        ],
        "dead_letters": {count.reason.value: count.total for count in state.dead},
        "subscribers": dict(state.subscribers),
        "redis_memory_bytes": state.memory_bytes,
        "redis_max_memory_bytes": state.memory_max_bytes,
        "last_failed": failed,
    }


def _headline(state: LineState) -> Text:
    text = Text()
    text.append(f"line {state.line}", style="bold")
    text.append(f"   {state.alive} worker{'' if state.alive == 1 else 's'}", style="" if state.alive else "bold red")
    text.append("   ledger balances" if state.ledger.balances else "   LEDGER DOES NOT BALANCE")
    if not state.ledger.balances:
        text.stylize("bold red", len(text) - 23)
    memory = f"   Redis {state.memory_bytes / 1e6:.0f} MB"
    if state.memory_max_bytes:
        memory += f" of {state.memory_max_bytes / 1e6:.0f}"
    text.append(memory)
    lagging = [f"{name} {seconds:.0f} s" for name, seconds in state.subscribers.items() if seconds > OLD_S]
    if lagging:
        text.append(f"   behind: {', '.join(lagging)}", style="yellow")
    dead = sum(count.letters for count in state.dead)
    if dead:
        text.append(f"   {dead} dead letters", style="yellow")
    return text


def _cameras(state: LineState, rates: dict[str, float], most: int | None) -> Group:
    table = _table("camera", "frames\n/s", "\nadmitted", "\npass", "\nfail", "fail\n%", "not\njudged", "in\nflight")
    for name in ("oldest\ns", "silent\ns"):
        table.add_column(name, justify="right", no_wrap=True)
    rows = state.ledger.rows
    shown = rows if most is None or len(rows) <= most else sorted(rows, key=_trouble, reverse=True)[:most]
    for row in shown:
        rate = rates.get(row.camera)
        share = f"{100 * row.failed / row.judged:.1f}" if row.judged else "–"
        silence = _silence_s(state, row.last_admitted_us)
        table.add_row(
            Text(row.camera) if row.balances else Text(f"{row.camera}\noff by {row.imbalance}", style="red"),
            "–" if rate is None else f"{rate:.1f}",
            str(row.admitted),
            str(row.passed),
            str(row.failed),
            share,
            str(row.not_judged),
            str(row.in_flight),
            _aged(row.backlog_age_s),
            "–" if silence is None else f"{silence:.0f}",
        )
    if len(shown) == len(rows):
        return Group(table)
    return Group(table, Text(f"and {len(rows) - len(shown)} cameras more; all of them: gaussline ledger"))


def _trouble(row: LedgerRow) -> tuple[bool, float, int, float, int]:
    """What a person should look at first: the ledger, frames that wait, frames that were dropped, failed ones."""
    failed = row.failed / row.judged if row.judged else 0.0
    return not row.balances, row.backlog_age_s, row.dropped, failed, -row.last_admitted_us


def _workers(state: LineState) -> Table:
    sets = {worker.worker_set for worker in state.workers} != {MAIN} and bool(state.workers)
    table = _table("worker", "state", "host", "judges by", *(("set",) if sets else ()), justify="left")
    table.add_column("runs")
    for worker in state.workers:
        alive = Text("dead", style="red")
        if worker.alive:
            alive = Text("alive") if worker.warm else Text("warms up", style="yellow")
        told = [worker.worker_set] if sets else []
        table.add_row(Text(worker.name), alive, Text(worker.host), _versions(worker), *told, Text(worker.runtime))
    return table


def _versions(worker: WorkerState) -> Text:
    text = Text(", ".join(f"{name} {version}" for name, version in {**worker.models, **worker.trials}.items()))
    for name, why in worker.refused.items():
        text.append(f"{', ' if text else ''}refuses {name} {why}", style="red")
    return text


def _table(first: str, *others: str, justify: JustifyMethod = "right") -> Table:
    """A table that fits 80 columns: nothing between its columns but air, and nothing in them is cut."""
    table = Table(expand=True, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify=justify, no_wrap=name != "judges by")
    return table


def _rollout(state: LineState) -> Text:
    said = [
        f"{each.model}/{each.channel} at version {each.version}" for each in state.pointers if each.channel != "stable"
    ]
    said += [f"{pin.model} pinned to version {pin.version} by {pin.by}" for pin in state.pins.values()]
    return Text("; ".join(said), style="cyan")


def _learners(state: LineState) -> Table:
    table = _table("learns", "state", "behind s", justify="left")
    table.add_column("drift")
    for learner in state.learners:
        said = [each.text or f"{each.test} of {each.camera}" for each in learner.alarms[:ALARMS_SHOWN]]
        if len(learner.alarms) > ALARMS_SHOWN:
            said.append(f"{len(learner.alarms) - ALARMS_SHOWN} more")
        runs = "runs" if learner.running else "[red]no learner[/]"
        drift = Text("; ".join(said), style="yellow") if said else Text("none")
        table.add_row(learner.model, runs, f"{learner.behind_s:.0f}", drift)
    return table


def _failed(failed: list[dict[str, Any]]) -> Table:
    table = _table("failed at (UTC)", "frame", "part", "score", "threshold", "p-value", justify="left")
    for verdict in failed:
        table.add_row(
            verdict["judged_at"][:19].replace("T", " "),
            verdict["id"],
            Text(verdict["part"] or "–"),
            f"{verdict['score']:.1f}",
            f"{verdict['threshold']:.1f}",
            f"{verdict['p_value']:.4f}",
        )
    return table


def _silence_s(state: LineState, last_us: int) -> float | None:
    return max(0.0, (state.ledger.now_us - last_us) / 1e6) if last_us else None


def _aged(seconds: float) -> str:
    return f"[red]{seconds:.1f}[/]" if seconds > OLD_S else f"{seconds:.1f}"
