"""`gaussline dead`: what could not be judged, the bytes of it, and what to do about it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from gaussline.worker.broker.dead_letters import DeadLetters
from gaussline.worker.broker.retry import Retrier
from gaussline.worker.commands.ago import parse_ago
from gaussline.worker.commands.console import err, listing, out, progress
from gaussline.worker.commands.options import Json, Line, RedisUrl, open_line, write_file
from gaussline.worker.contract.dead_letter import DeadLetter
from gaussline.worker.contract.frame import Frame, decode_batch
from gaussline.worker.contract.verdict import Reason
from gaussline.worker.errors import Backlogged, ContractError, GausslineError, NotFound, SettingsError

EPILOG = """\b
Examples:
  gaussline dead list
  gaussline dead list --reason undecodable
  gaussline dead show undecodable cam1:3:1042
  gaussline dead get undecodable cam1:3:1042 --output letter.msgpack
  gaussline dead retry no_model --all
  gaussline dead drop undecodable --older-than 3d

A retried frame is a new one, of the camera NAME.retry: the old one has had its verdict, and keeps it. The new verdict
names it in `retry_of`. Letters go by themselves at GAUSSLINE_DEAD_MAX_BYTES a reason and GAUSSLINE_DEAD_MAX_AGE_S; what
went is counted."""
app = typer.Typer(
    help="Dead letters, what could not be judged: list, show, get, retry, drop.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
)
Its = Annotated[Reason, typer.Argument(help="Its reason.")]
Identity = Annotated[str, typer.Argument(help="Frame, camera:epoch:sequence, or the letter's entry id.")]
Identities = Annotated[list[str] | None, typer.Argument(help="Frames, or entry ids of letters.")]
All = Annotated[bool, typer.Option("--all", help="Every letter of the reason.")]


@app.command("list")
def list_dead(
    reason: Annotated[Reason | None, typer.Option(help="Letters of one reason; none counts them all.")] = None,
    count: Annotated[int, typer.Option(min=1, help="How many letters.")] = 20,
    redis_url: RedisUrl = None,
    line: Line = None,
    as_json: Json = False,
) -> None:
    """Dead letters by reason, or the newest of one reason."""
    opened = open_line(redis_url, line)
    letters = DeadLetters(opened.client, opened.line)
    if reason is not None:
        for entry_id, letter in letters.list(reason, count):
            text = json.dumps(_about(entry_id, letter), ensure_ascii=not as_json)
            if not as_json:
                size = f"{len(letter.data)} bytes, delivered {letter.deliveries}×"
                text = f"{entry_id} {letter.id} {size}: {json.dumps(letter.detail, ensure_ascii=False)[1:-1]}"
            out().print(text, highlight=False, markup=False, soft_wrap=True)
        return
    rows = letters.counts()
    if as_json:
        out().print_json(json.dumps([dataclasses.asdict(row) for row in rows]))
        return
    if not rows:
        out().print(f"no dead letter on line {opened.line}")
        return
    numbers = ("frames ever", "letters", "bytes", "for space", "aged out", "retried", "dropped")
    table = listing("reason", *numbers, flowing=numbers, right=numbers)
    for row in rows:
        cells = (row.total, row.letters, row.size_bytes, row.dropped, row.aged, row.retried, row.removed)
        table.add_row(row.reason.value, *(str(cell) for cell in cells))
    out().print(table)


@app.command()
def show(reason: Its, identity: Identity, redis_url: RedisUrl = None, line: Line = None, as_json: Json = False) -> None:
    """One letter: why, how often it was delivered, and what its bytes are."""
    opened = open_line(redis_url, line)
    entry_id, letter = DeadLetters(opened.client, opened.line).find(reason, identity)
    about = _about(entry_id, letter) | {"holds": _holds(letter)}
    if as_json:
        out().print_json(json.dumps(about))
        return
    for name, value in about.items():
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        text = f"{name.replace('_', ' '):12} {json.dumps(shown, ensure_ascii=False)[1:-1]}"
        out().print(text, highlight=False, markup=False, soft_wrap=True)


@app.command("get")
def get_dead(
    reason: Its,
    identity: Identity,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write its bytes to.")],
    redis_url: RedisUrl = None,
    line: Line = None,
) -> None:
    """Write a dead letter's bytes to a file: a frame batch, or what came in the place of one."""
    opened = open_line(redis_url, line)
    _, letter = DeadLetters(opened.client, opened.line).find(reason, identity)
    write_file(output, letter.data)
    out().print(f"{output}: {len(letter.data)} bytes", highlight=False, markup=False, soft_wrap=True)


@app.command()
def retry(
    reason: Its,
    identities: Identities = None,
    every: All = False,
    limit: Annotated[int | None, typer.Option(min=1, help="With --all: so many at most, the oldest first.")] = None,
    redis_url: RedisUrl = None,
    line: Line = None,
    as_json: Json = False,
) -> None:
    """Admit letters' frames again, as new frames of the camera NAME.retry, and remove the letters.

    What has no bytes (expired, lost) or holds no frame batch is left where it is, and said. A full line ends the run
    with what was done so far: run it again later. One run at a time.
    """
    _one_of(identities, every)
    opened = open_line(redis_url, line)
    letters = DeadLetters(opened.client, opened.line)
    settings = opened.settings
    retrier = Retrier(
        opened.client,
        opened.line,
        camera_budget_bytes=settings.camera_budget_bytes,
        line_budget_bytes=settings.line_budget_bytes,
    )
    total = min(_held(letters, reason), limit or 2**62) if every else len(identities or ())
    retried: list[dict[str, Any]] = []
    left: list[dict[str, Any]] = []
    failure: GausslineError | None = None
    with progress("letters") as bar:
        task = bar.add_task("retrying", total=total)
        for entry_id, letter in _chosen(letters, reason, identities):
            try:
                retried.append({"entry": entry_id, "id": letter.id, "frames": retrier.retry(entry_id, letter)})
            except (ContractError, NotFound) as error:
                left.append({"entry": entry_id, "id": letter.id, "why": str(error)})
            except GausslineError as error:
                failure = error
                break
            bar.advance(task)
            if len(retried) == limit:
                break
    _tell_retried(retried, left, as_json)
    if isinstance(failure, Backlogged):
        raise Backlogged(f"{failure}; {len(retried)} letters were retried: run it again when workers have caught up")
    if failure is not None:
        raise failure
    if left and not every:
        raise typer.Exit(1)


@app.command()
def drop(
    reason: Its,
    identities: Identities = None,
    every: All = False,
    older_than: Annotated[str | None, typer.Option(help="Those older than that: 90s, 10m, 2h, 3d.")] = None,
    redis_url: RedisUrl = None,
    line: Line = None,
    as_json: Json = False,
) -> None:
    """Remove letters for good; they are counted as dropped."""
    _one_of(identities, every, older_than is not None)
    opened = open_line(redis_url, line)
    letters = DeadLetters(opened.client, opened.line)
    if older_than is not None or every:
        age_s = 0.0 if older_than is None else parse_ago("--older-than", older_than)
        removed = letters.remove_older(reason, age_s)
    else:
        removed = letters.remove(reason, [entry_id for entry_id, _ in _chosen(letters, reason, identities)])
    if as_json:
        out().print_json(json.dumps({"reason": reason.value, "removed": removed}))
    else:
        out().print(f"{removed} dead letters of reason {reason.value} are gone", highlight=False)


def _one_of(identities: list[str] | None, *others: bool) -> None:
    if bool(identities) + sum(others) != 1:
        raise SettingsError("name letters, or one option that chooses them: see --help")


def _held(letters: DeadLetters, reason: Reason) -> int:
    return next((row.letters for row in letters.counts() if row.reason == reason), 0)


def _chosen(letters: DeadLetters, reason: Reason, identities: list[str] | None) -> Iterator[tuple[str, DeadLetter]]:
    if not identities:
        return letters.each(reason)
    return (letters.find(reason, identity) for identity in identities)


def _about(entry_id: str, letter: DeadLetter) -> dict[str, Any]:
    about = {name: value for name, value in dataclasses.asdict(letter).items() if name != "data"}
    return {"entry": entry_id, **about, "size_bytes": len(letter.data)}


def _holds(letter: DeadLetter) -> str:
    """What a letter's bytes are, for a person."""
    if not letter.data:
        return "nothing"
    try:
        batch = decode_batch(letter.data)
    except ContractError as error:
        return f"no frame batch: {error}"
    kinds = [
        f"{frame.encoding} of {len(frame.data)} bytes" + (f", part {frame.part}" if frame.part else "")
        if isinstance(frame, Frame)
        else f"a broken frame ({frame.reason.value})"
        for frame in batch.frames
    ]
    return f"a frame batch of camera {batch.camera}, epoch {batch.epoch}: {'; '.join(kinds)}"


def _tell_retried(retried: list[dict[str, Any]], left: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        out().print_json(json.dumps({"retried": retried, "left": left}))
        return
    for one in retried:
        out().print(f"{one['id']} is {', '.join(one['frames'])} now", highlight=False, markup=False, soft_wrap=True)
    for one in left:
        err().print(f"gaussline: {one['why']}", highlight=False, markup=False, soft_wrap=True)
    out().print(f"{len(retried)} letters retried, {len(left)} left", highlight=False)
