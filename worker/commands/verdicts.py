"""`gaussline verdicts`: read, follow and filter the verdicts of a line."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from gaussline.worker.broker.client import time_us
from gaussline.worker.broker.exactly_once import entry_order
from gaussline.worker.broker.verdicts import PartVerdicts, Verdicts
from gaussline.worker.commands.ago import seconds_of
from gaussline.worker.commands.options import Line, RedisUrl, open_line
from gaussline.worker.contract.clock import from_text
from gaussline.worker.contract.verdict import Decision
from gaussline.worker.errors import BrokerUnavailable, ContractError, SettingsError

EPILOG = """\b
Examples:
  gaussline verdicts --follow
  gaussline verdicts --since 10m --only fail
  gaussline verdicts --follow --json --group mes | mes-adapter
  gaussline verdicts --parts --follow

With --group the cursor moves on when the lines are written and flushed; what a crash leaves unacknowledged is printed
again the next time, and `id` recognises it. A Redis that goes away while verdicts are followed is waited for."""
Entry = tuple[str, dict[str, Any]]
BLOCK_S = 1.0
RETRY_S = (0.1, 5.0)
_COLUMNS = f"{'at (UTC)':8} {'decision':10} {'frame':16} {'part':10} p-value score / limit model"
"""80 of them in all, for names as they mostly are: a row that is broken in two is hard to follow."""


def verdicts(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as verdicts come, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, as the contract says.")] = False,
    only: Annotated[Decision | None, typer.Option(help="pass, fail or not_judged.")] = None,
    camera: Annotated[str | None, typer.Option(help="Of one camera.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Judged from then on: 90s, 10m, 2h, 3d ago, or 2026-01-31T14:00:00Z.")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(help="Read with this subscriber's durable cursor; it is registered where it is new."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many.")] = None,
    parts: Annotated[
        bool, typer.Option("--parts", help="Part verdicts, of 'gaussline parts'; they have subscribers of their own.")
    ] = False,
    redis_url: RedisUrl = None,
    line: Line = None,
) -> None:
    """Print verdicts: those there are, or with --follow also those to come.

    Without --group, --follow begins now, or at --since. With --group it begins where that subscriber stands, and its
    verdicts stay in Redis until it has them; what --only and --camera leave out counts as read.
    """
    if group is not None and since is not None:
        raise SettingsError("--since and --group: a subscriber begins where its cursor stands; give one of them")
    if parts and camera is not None:
        raise SettingsError("--parts and --camera: a part has many")
    opened = open_line(redis_url, line)
    reader = (PartVerdicts if parts else Verdicts)(opened.client, opened.line)
    show = _part_line if parts else _line
    if group is not None:
        reader.register(group)
        position = reader.position(group)
    elif since is not None:
        position = _just_before(_since_us(since, time_us(opened.client)))
    else:
        position = reader.last_id() if follow else "0-0"
    wanted = {"decision": only, "camera": camera}

    def printed(entries: list[Entry], left: int | None) -> tuple[int, str]:
        """Print what is wanted of them, `left` at most: how many, and the last entry that was looked at."""
        count, last = 0, ""
        for entry_id, verdict in entries:
            last = entry_id
            if all(value is None or verdict[name] == value for name, value in wanted.items()):
                sys.stdout.write((json.dumps(verdict, ensure_ascii=False) if as_json else show(verdict)) + "\n")
                count += 1
                if count == left:
                    break
        sys.stdout.flush()
        return count, last

    if sys.stdout.isatty() and not as_json and not parts:
        print(_COLUMNS)
    try:
        for entries in _batches(reader, position, follow, group):
            count, last = printed(entries, limit)
            if group is not None:
                _patiently(follow, reader.ack, group, last)
            if limit is not None and (limit := limit - count) == 0:
                return
    except BrokenPipeError:
        # The reader of a pipe has gone; nothing is left to be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _batches(reader: Verdicts, position: str, follow: bool, group: str | None) -> Iterator[list[Entry]]:
    """Entries after a position, in the batches they are read in, never empty ones; for ever where `follow`.

    Where another server became the master, those of a `group` begin at its cursor there again: see `Verdicts.moves`.
    """
    moves = reader.moves
    while True:
        entries = _patiently(follow, reader.read, position, block_s=BLOCK_S if follow else None)
        if group is not None and reader.moves != moves:
            moves = reader.moves
            position = min(position, _patiently(follow, reader.position, group), key=entry_order)
        elif entries:
            position = entries[-1][0]
            yield entries
        elif not follow:
            return


def _patiently(patient: bool, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """The call's answer; where `patient`, an outage of Redis is said once and waited out."""
    pause_s = 0.0
    while True:
        try:
            answer = call(*arguments, **named)
        except BrokerUnavailable as error:
            if not patient:
                raise
            if not pause_s:
                print(f"gaussline: {error}; trying again", file=sys.stderr)
            pause_s = min(2 * pause_s or RETRY_S[0], RETRY_S[1])
            time.sleep(pause_s)
        else:
            if pause_s:
                print("gaussline: Redis is back", file=sys.stderr)
            return answer


def _since_us(text: str, now_us: int) -> int:
    ago_s = seconds_of(text)
    if ago_s is not None:
        return max(0, now_us - ago_s * 1_000_000)
    try:
        return from_text(text)
    except ContractError:
        raise SettingsError(
            f"--since {text!r} is neither a time ago (90s, 10m, 2h, 3d) nor a time such as 2026-01-31T14:00:00Z"
        ) from None


def _just_before(us: int) -> str:
    """The entry id that every verdict from that moment on comes after: ids are Redis's milliseconds."""
    return "0-0" if us < 1000 else f"{us // 1000 - 1}-{2**64 - 1}"


def _line(verdict: dict[str, Any]) -> str:
    head = (
        f"{verdict['judged_at'][11:19]} {verdict['decision']:10} {verdict['id']:16} {_plain(verdict['part'] or '–'):10}"
    )
    if verdict["decision"] == Decision.NOT_JUDGED:
        return f"{head} {verdict['reason']}: {_plain(verdict['detail'] or '')}"
    mark = "  RANDOM WEIGHTS" if verdict["random_weights"] else ""
    scores = f"{verdict['score']:.4g} / {verdict['threshold']:.4g}"
    model = f"{verdict['model']['name']} v{verdict['model']['version']}"
    return f"{head} {verdict['p_value']:<7.4f} {scores:13} {model}{mark}"


def _part_line(verdict: dict[str, Any]) -> str:
    frames = " ".join(f"{frame['id']}={frame['decision']}" for frame in verdict["frames"])
    lacking = f" {verdict['reason']}: {_plain(', '.join(verdict['missing']))}" if verdict["reason"] else ""
    return f"{verdict['decided_at'][11:23]} {verdict['decision']:10} {_plain(verdict['part']):16} {frames}{lacking}"


def _plain(text: str) -> str:
    """Text that moves no cursor and hides nothing: part ids and details come from outside."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)
