"""`gaussline sets`: a new backbone, rolled out through workers of its own, camera by camera."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from gaussline.worker.broker.cameras import DEFAULT_MODEL, read_cameras
from gaussline.worker.broker.line_state import read_workers
from gaussline.worker.broker.sets import COPY_BYTES, EVERY, Sets, WorkerSet
from gaussline.worker.commands.console import listing, out
from gaussline.worker.commands.options import By, Connection, Json, Line, Note, RedisUrl, open_line, who
from gaussline.worker.contract.keys import MAIN
from gaussline.worker.contract.trial import DEFAULT_RULES
from gaussline.worker.errors import Conflict, NotFound, SettingsError

EPILOG = """\b
Example, a new backbone from nothing to the whole line:
  gaussline fit parts/ --backbone efficientnet_b4 --name plates-b4 --promote
  gaussline sets add b4 --model plates-b4
  gaussline worker --set b4 --weights efficientnet_b4.pth
  gaussline sets copy b4 cam1 cam2
  gaussline sets compare b4
  gaussline sets move cam1 b4 --note "better on scratches"
  gaussline sets move cam1 main --note "too slow at the shift change"

The workers of a set see copies of its cameras' frames, and what they say of them decides nothing. Copies are shed where
the set does not keep up. A moved camera is settled by its set alone; moving it back is one command too."""
app = typer.Typer(
    help="Sets of workers: list, add, copy, uncopy, compare, move, history, remove.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
)
Name = Annotated[str, typer.Argument(metavar="SET", help="Name of the set.")]
Camera = Annotated[str, typer.Argument(help="Camera.")]
Cameras = Annotated[list[str], typer.Argument(metavar="CAMERA…", help="Cameras.")]


@app.command("list")
def list_sets(redis_url: RedisUrl = None, line: Line = None, as_json: Json = False) -> None:
    """Every set: its workers, the cameras that it settles or is shown copies of, and what became of the copies."""
    opened = open_line(redis_url, line)
    sets = Sets(opened.client, opened.line)
    declared, assignments, workers = sets.read(), sets.assignments(), read_workers(opened.client, opened.line)
    rows = []
    for name in (MAIN, *declared):
        counts = sets.counts(name)
        own = declared.get(name)
        rows.append(
            {
                "set": name,
                "models": {} if own is None else dict(own.models),
                "workers": [worker.name for worker in workers if worker.alive and worker.worker_set == name],
                "settles": [each.camera for each in assignments.values() if each.settled_by == name],
                "copied": [each.camera for each in assignments.values() if each.copied_to == name],
                "max_bytes": 0 if own is None else own.max_bytes,
                **{f"copies_{key}": value for key, value in dataclasses.asdict(counts).items()},
            }
        )
    if as_json:
        out().print_json(json.dumps(rows))
        return
    columns = ("set", "models", "workers", "settles", "is shown", "waiting", "copied", "shed", "results")
    flowing = ("models", "settles", "is shown", "waiting")
    table = listing(*columns, flowing=flowing, right=("workers", "waiting", "copied", "shed", "results"))
    for row in rows:
        is_main = row["set"] == MAIN
        copies = [
            f"{row['copies_waiting_bytes'] / 1e6:.1f} of {row['max_bytes'] / 1e6:.0f} MB",
            *(str(row[f"copies_{key}"]) for key in ("copied", "shed", "results")),
        ]
        table.add_row(
            row["set"],
            "the cameras' own" if is_main else _models(row["models"]),
            str(len(row["workers"])) if row["workers"] else "[red]none[/]",
            _some(row["settles"]),
            _some(row["copied"]),
            *(["–"] * 4 if is_main else copies),
        )
    out().print(table)


@app.command()
def add(
    name: Name,
    model: Annotated[
        list[str],
        typer.Option(help="Model that it judges by; OLD=NEW for cameras of model OLD alone. May be repeated."),
    ],
    max_bytes: Annotated[int, typer.Option(help="Bytes of copies that may wait; beyond it they are shed.", min=1)] = (
        COPY_BYTES
    ),
    note: Note = "",
    by: By = "",
    redis_url: RedisUrl = None,
    line: Line = None,
    as_json: Json = False,
) -> None:
    """Declare a set, or change it. Its workers are started with 'gaussline worker --set NAME'.

    Examples:

      gaussline sets add b4 --model plates-b4

      gaussline sets add b4 --model plates=plates-b4 --model lids=lids-b4 --max-bytes 33554432
    """
    models: dict[str, str] = {}
    for each in model:
        old, equals, new = each.partition("=")
        models[old if equals else EVERY] = new if equals else old
    opened = open_line(redis_url, line)
    made = Sets(opened.client, opened.line).declare(name, models, by=who(by), note=note, max_bytes=max_bytes)
    if as_json:
        out().print_json(json.dumps(dataclasses.asdict(made)))
        return
    out().print(f"set {name} judges by {_models(made.models)}", highlight=False)
    out().print(f"It has nothing to do yet: gaussline worker --set {name}; gaussline sets copy {name} CAMERA")


@app.command()
def copy(
    name: Name,
    cameras: Cameras,
    note: Note = "",
    by: By = "",
    redis_url: RedisUrl = None,
    line: Line = None,
) -> None:
    """Show a set copies of these cameras' frames. It settles none of them."""
    opened = open_line(redis_url, line)
    sets = Sets(opened.client, opened.line)
    own = _declared(sets, name, opened)
    for camera in cameras:
        _has_model(own, camera, opened)
    for camera in cameras:
        changed = sets.copy(camera, name, by=who(by), note=note)
        said = "from now on" if changed else "already"
        out().print(f"camera {camera} is copied to set {name} {said}", highlight=False)


@app.command()
def uncopy(cameras: Cameras, note: Note = "", by: By = "", redis_url: RedisUrl = None, line: Line = None) -> None:
    """Show nobody copies of these cameras' frames any more."""
    opened = open_line(redis_url, line)
    sets = Sets(opened.client, opened.line)
    for camera in cameras:
        changed = sets.copy(camera, "", by=who(by), note=note)
        said = "is not copied any more" if changed else "was not copied"
        out().print(f"camera {camera} {said}", highlight=False)


@app.command()
def compare(
    name: Name,
    camera: Annotated[str | None, typer.Option(help="This camera alone.")] = None,
    rules: Annotated[str, typer.Option(help="What would speak against it: MEASURE > LIMIT, joined by 'or'.")] = (
        DEFAULT_RULES
    ),
    redis_url: RedisUrl = None,
    line: Line = None,
    as_json: Json = False,
) -> None:
    """What a set says of the frames it was shown, beside their verdicts: where the two differ, and what the rules say.

    Measures are those of a trial: extra_fails, lost_fails, disagreement, failed_share, failed_change, failed_ratio,
    p_value_shift, p99_ratio.
    """
    from gaussline.worker.learning.set_comparison import compare as pair
    from gaussline.worker.learning.trial_rules import confidence_of, findings, outcome, parse_rules

    wanted = parse_rules(rules)
    opened = open_line(redis_url, line)
    _declared(Sets(opened.client, opened.line), name, opened)
    found = pair(opened.client, opened.line, name, camera)
    pairs = found.counts.pairs
    measured = findings(wanted, found.counts, confidence_of(1, len(wanted))) if pairs.frames else []
    says = {"abort": "the rules speak against it", "clear": "the rules are kept", "go_on": "too few frames to say"}
    said = says[outcome(measured).value] if measured else "no frame was judged by both yet"
    report: dict[str, Any] = {
        "set": name,
        "frames": pairs.frames,
        "both_pass": pairs.both_pass,
        "both_fail": pairs.both_fail,
        "failed_by_set_only": pairs.only_new,
        "failed_by_verdict_only": pairs.only_old,
        "p99_s": {"verdicts": found.counts.p99_s(new=False), "set": found.counts.p99_s(new=True)},
        "cameras": dict(found.cameras),
        "models": {"verdicts": dict(found.models[0]), "set": dict(found.models[1])},
        "not_judged": dict(found.undecided),
        "own": found.own,
        "unmatched": found.unmatched,
        "rules": [
            {"rule": str(each.rule), **dataclasses.asdict(each.estimate), "broken": each.broken, "kept": each.kept}
            for each in measured
        ],
        "says": said,
    }
    if as_json:
        out().print_json(json.dumps(report))
        return
    out().print(f"{pairs.frames} frames judged by both; {found.unmatched} results without a verdict", highlight=False)
    if pairs.frames:
        table = Table("", "verdict pass", "verdict fail", title=f"set {name} beside the verdicts")
        table.add_row("set pass", str(pairs.both_pass), str(pairs.only_old))
        table.add_row("set fail", str(pairs.only_new), str(pairs.both_fail))
        out().print(table)
        for each in measured:
            estimate = each.estimate
            interval = f"{estimate.value:.2%} ({estimate.low:.2%} to {estimate.high:.2%})"
            verdict = "broken" if each.broken else "kept" if each.kept else "undecided"
            out().print(f"{each.rule}: {interval}: {verdict}", highlight=False, markup=False)
    out().print(said, highlight=False)


@app.command()
def move(
    camera: Camera,
    to: Annotated[str, typer.Argument(metavar="SET", help="The set that is to settle it; main moves it back.")],
    force: Annotated[bool, typer.Option("--force", help="Though no worker of that set is ready for it.")] = False,
    note: Note = "",
    by: By = "",
    redis_url: RedisUrl = None,
    line: Line = None,
    as_json: Json = False,
) -> None:
    """Let another set settle a camera's frames, from the next unread one on. One operator wins; another is told.

    What a worker has in hand is settled by that worker. Nothing is lost, and no frame gets two verdicts.
    """
    opened = open_line(redis_url, line)
    sets = Sets(opened.client, opened.line)
    if not force:
        _ready(sets, camera, to, opened)
    before, after = sets.move(camera, to, by=who(by), note=note)
    if as_json:
        out().print_json(json.dumps({"before": dataclasses.asdict(before), "after": dataclasses.asdict(after)}))
        return
    if before == after:
        out().print(f"set {to} settles camera {camera} already", highlight=False)
    else:
        out().print(f"camera {camera}: set {after.settled_by} settles it, {before.settled_by} did", highlight=False)


@app.command()
def history(redis_url: RedisUrl = None, line: Line = None, as_json: Json = False) -> None:
    """Every change of sets and every move of a camera, oldest first: who, when, why."""
    opened = open_line(redis_url, line)
    moves = Sets(opened.client, opened.line).history()
    if as_json:
        out().print_json(json.dumps([dataclasses.asdict(each) for each in moves]))
        return
    table = Table("when (UTC)", "what", "set", "camera", "before", "by", "note")
    for each in moves:
        when = each.at[:19].replace("T", " ")
        table.add_row(when, each.kind, each.set, each.camera, each.before, Text(each.by), Text(each.note))
    out().print(table)


@app.command()
def remove(name: Name, note: Note = "", by: By = "", redis_url: RedisUrl = None, line: Line = None) -> None:
    """Forget a set, its copies and its results. Its cameras are moved away first."""
    opened = open_line(redis_url, line)
    Sets(opened.client, opened.line).remove(name, by=who(by), note=note)
    out().print(f"set {name} is gone; its workers have nothing to do", highlight=False)


def _declared(sets: Sets, name: str, opened: Connection) -> WorkerSet:
    if name == MAIN:
        raise SettingsError(f"set {MAIN} settles frames; copies are shown to another set")
    found = sets.read().get(name)
    if found is None:
        raise NotFound(f"no set {name!r} on line {opened.line}: 'gaussline sets add {name} --model M' declares it")
    return found


def _has_model(own: WorkerSet, camera: str, opened: Connection) -> str:
    settings = read_cameras(opened.client, opened.line).get(camera)
    model = own.model_for(DEFAULT_MODEL if settings is None else settings.model)
    if model is None:
        assert settings is not None
        raise SettingsError(
            f"set {own.name} has no model for cameras of model {settings.model}, such as {camera}: 'gaussline sets add "
            f"{own.name} --model {settings.model}=…'"
        )
    return model


def _ready(sets: Sets, camera: str, to: str, opened: Connection) -> None:
    """Refuse to hand a camera to a set whose workers could not judge it. Raises Conflict."""
    alive = [each for each in read_workers(opened.client, opened.line) if each.alive and each.worker_set == to]
    if not alive:
        raise Conflict(f"no worker of set {to} lives: start one ('gaussline worker --set {to}'), or say --force")
    if to == MAIN:
        own = read_cameras(opened.client, opened.line).get(camera)
        model = DEFAULT_MODEL if own is None else own.model
    else:
        model = _has_model(_declared(sets, to, opened), camera, opened)
    able = [each for each in alive if model in each.models and model not in each.refused]
    if not able:
        why = next(
            (each.refused[model] for each in alive if model in each.refused), "it is not promoted or still loading"
        )
        raise Conflict(f"no worker of set {to} judges by model {model}: {why}")


def _models(models: Any) -> str:
    return ", ".join(new if old == EVERY else f"{old} by {new}" for old, new in models.items())


def _some(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
