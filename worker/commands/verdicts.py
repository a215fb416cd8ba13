"""`gaussline verdicts`: read, follow and filter the verdicts of a line."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Annotated, Any

import typer

from gaussline.worker.broker.client import time_us
from gaussline.worker.broker.verdicts import Verdicts
from gaussline.worker.commands.options import Line, RedisUrl, open_line
from gaussline.worker.contract.clock import from_text
from gaussline.worker.contract.verdict import Decision

_AGO = re.compile(r"(\d+)([smhd])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def verdicts(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as verdicts come, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, as the contract says.")] = False,
    only: Annotated[Decision | None, typer.Option(help="pass, fail or not_judged.")] = None,
    camera: Annotated[str | None, typer.Option(help="Of one camera.")] = None,
    since: Annotated[str | None, typer.Option(help="From a time on: 10m, 2h, or 2026-01-31T14:00:00Z.")] = None,
    group: Annotated[
        str | None,
        typer.Option(help="Read with this subscriber's durable cursor; it moves on as verdicts are printed."),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Stop after so many.")] = None,
    redis_url: RedisUrl = None,
    line: Line = None,
) -> None:
    """Print verdicts: those there are, or with --follow also those to come.

    A subscriber's verdicts stay until it has them: with --group, what was not printed comes again next time.

    Example: gaussline verdicts --follow --json --only fail --group mes
    """
    opened = open_line(redis_url, line)
    reader = Verdicts(opened.client, opened.line)
    position = "0-0"
    if group is not None:
        reader.register(group)
        position = reader.subscribers()[group]
    elif since is not None:
        position = f"{_since_us(since, time_us(opened.client)) // 1000}-0"
    elif follow:
        position = reader.last_id()
    printed = 0
    try:
        while limit is None or printed < limit:
            entries = reader.read(position, block_s=1.0 if follow else None)
            if not entries and not follow:
                return
            for entry_id, verdict in entries:
                position = entry_id
                if (only is None or verdict["decision"] == only) and camera in (None, verdict["camera"]):
                    sys.stdout.write((json.dumps(verdict, ensure_ascii=False) if as_json else _line(verdict)) + "\n")
                    printed += 1
                    if limit is not None and printed >= limit:
                        break
            if entries:
                sys.stdout.flush()  # before the cursor moves: what was printed is out of our hands
                if group is not None:
                    reader.ack(group, position)
    except BrokenPipeError:
        # The reader of a pipe has gone; nothing is left to be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _since_us(text: str, now_us: int) -> int:
    ago = _AGO.match(text)
    if ago is not None:
        return now_us - int(ago[1]) * _SECONDS[ago[2]] * 1_000_000
    return from_text(text)


def _line(verdict: dict[str, Any]) -> str:
    judged = verdict["judged_at"][11:23]
    head = f"{judged} {verdict['decision']:10} {verdict['id']:24} {verdict['part'] or '–':16}"
    if verdict["decision"] == Decision.NOT_JUDGED:
        return f"{head} {verdict['reason']}: {verdict['detail']}"
    mark = "  RANDOM WEIGHTS" if verdict["random_weights"] else ""
    model = verdict["model"]
    return (
        f"{head} p {verdict['p_value']:.4f}  score {verdict['score']:.4g} / {verdict['threshold']:.4g}  "
        f"{model['name']} v{model['version']}{mark}"
    )
