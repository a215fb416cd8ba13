"""`gaussline models …`: what belongs to trials and to keeping versions: trial, stop, pin, unpin, gc."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from gaussline.worker.broker.registry import Pointer
from gaussline.worker.broker.retention import Collector, Keep
from gaussline.worker.commands.console import err, listing, out
from gaussline.worker.commands.options import By, Json, Line, Note, RedisUrl, open_line, who, write_file
from gaussline.worker.contract.trial import CANARY, CHANNELS, SHADOW, Selection, Trial, parse_duration, parse_share
from gaussline.worker.errors import NotFound, SettingsError

Name = Annotated[str, typer.Argument(help="Name of the model.")]


def plan_trial(
    canary: str | None, cameras: list[str], shadow: bool, for_: str | None, abort_if: str, frames: int, hold: bool
) -> tuple[str, Selection | None, Trial] | None:
    """Channel, selection and trial that the options of `promote` ask for; None for a plain promotion.

    Raises SettingsError where they contradict each other.
    """
    if canary is None and not cameras and not shadow:
        if for_ is not None:
            raise SettingsError(
                "--for is the length of a trial: say --canary 10%, --canary-camera NAME or --shadow too"
            )
        return None
    if shadow and (canary is not None or cameras):
        raise SettingsError("a shadow decides nothing: --shadow goes without --canary and --canary-camera")
    from gaussline.worker.learning.trial_rules import parse_rules  # brings scipy, which a plain promotion needs not

    rules = parse_rules(abort_if)
    if shadow and any(rule.measure == "p99_ratio" for rule in rules):
        raise SettingsError("p99_ratio is of a canary: a shadow decides no frame that could be late")
    trial = Trial(1800.0 if for_ is None else parse_duration(for_), abort_if, frames, promote=not hold)
    if shadow:
        return SHADOW, None, trial
    return CANARY, Selection(0.0 if canary is None else parse_share(canary), tuple(cameras)), trial


def show_trials(
    name: Name,
    html: Annotated[Path | None, typer.Option(help="Write the newest trial's report as one HTML page.")] = None,
    redis_url: RedisUrl = None,
    line: Line = None,
    as_json: Json = False,
) -> None:
    """Trials of a model, the newest first: what was counted, what the rules say, and how they ended.

    Examples:

      gaussline models trials default

      gaussline models trials default --html report.html
    """
    from gaussline.worker.learning.trial_judge import report
    from gaussline.worker.learning.trial_page import render
    from gaussline.worker.learning.trial_record import read_trials

    opened = open_line(redis_url, line)
    records = read_trials(opened.client, opened.line, name)[::-1]
    if not records:
        if name not in opened.registry().models():
            raise NotFound(f"no model {name!r} on line {opened.line}")
        if as_json:
            out().print_json("[]")
            return
        out().print(f"no trial of {name} yet; 'gaussline models promote {name} VERSION --canary 10%' begins one")
        return
    reports = [report(record) for record in records]
    if html is not None:
        write_file(html, render(reports[0]).encode())
        err().print(f"{html}: the trial of version {reports[0]['version']}", highlight=False)
    if as_json:
        out().print_json(json.dumps(reports))
        return
    columns = ("started (UTC)", "trial", "against", "state", "frames", "new/old only failed", "why")
    table = listing(*columns, flowing=("new/old only failed", "why"), right=("frames",))
    for each in reports:
        table.add_row(
            each["started_at"][: len("2026-01-31 14:00")].replace("T", " "),
            f"{each['channel']} {each['version']}",
            str(each["against"]),
            each["state"],
            str(each["frames"]),
            f"{each['failed_by_new_only']} / {each['failed_by_stable_only']}",
            Text(each["why"]),
        )
    out().print(table)


def stop_trial(
    name: Name,
    channel: Annotated[str, typer.Option(help="canary or shadow.")] = CANARY,
    note: Note = "",
    by: By = "",
    redis_url: RedisUrl = None,
    line: Line = None,
    as_json: Json = False,
) -> None:
    """End a trial by hand: stable decides every frame again, from the next batch on.

    Example: gaussline models stop default --channel canary --note "wrong lamp"
    """
    if channel not in CHANNELS[1:]:
        raise SettingsError(f"channel {channel!r} holds no trial: canary or shadow")
    opened = open_line(redis_url, line)
    was = opened.registry().remove(name, channel, by=who(by), note=note or "stopped by hand")
    say_pointer(was, as_json, f"{name}/{channel} no longer points at version {was.version}")


def pin(
    name: Name,
    note: Note = "",
    by: By = "",
    redis_url: RedisUrl = None,
    line: Line = None,
    as_json: Json = False,
) -> None:
    """Hold a model at its stable version: no promotion, rollback or roll-out judge moves it until it is unpinned.

    Example: gaussline models pin default --note "audit this week"
    """
    opened = open_line(redis_url, line)
    made = opened.registry().pin(name, by=who(by), note=note)
    if as_json:
        out().print_json(json.dumps(dataclasses.asdict(made)))
    else:
        out().print(f"{name} is pinned to version {made.version}", highlight=False)


def unpin(name: Name, redis_url: RedisUrl = None, line: Line = None) -> None:
    """Let a pinned model move again."""
    opened = open_line(redis_url, line)
    was = opened.registry().unpin(name)
    out().print(f"{name} may move again; it was pinned to version {was.version} by {was.by}", highlight=False)


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and delete nothing.")] = False,
    newest: Annotated[
        int | None, typer.Option(help="Versions of each model that stay; default GAUSSLINE_MODELS_NEWEST.", min=0)
    ] = None,
    max_age_days: Annotated[
        float | None, typer.Option(help="Younger ones stay; default GAUSSLINE_MODELS_MAX_AGE_S.", min=0.0)
    ] = None,
    max_bytes: Annotated[
        int | None,
        typer.Option(help="Bytes of a model's artefacts; default GAUSSLINE_MODELS_MAX_BYTES."),
    ] = None,
    redis_url: RedisUrl = None,
    line: Line = None,
    as_json: Json = False,
) -> None:
    """Delete artefacts of versions that nothing needs. What a pointer, a pin or a rollback needs is never deleted.

    'gaussline judge' does the same once a minute, by the settings.

    Example: gaussline models gc --dry-run --newest 5 --max-age-days 7
    """
    opened = open_line(redis_url, line)
    settings = opened.settings
    keep = Keep(
        settings.models_newest if newest is None else newest,
        settings.models_max_age_s if max_age_days is None else max_age_days * 86_400.0,
        settings.models_max_bytes if max_bytes is None else max_bytes,
    )
    collector = Collector(opened.client, opened.line, keep)
    rows: list[dict[str, Any]] = []
    for found in collector.plan():
        freed = found.version.size_bytes if dry_run else collector.collect(found)
        version = found.version
        rows.append({"model": version.model, "version": version.number, "bytes": freed, "why": found.why})
    left = collector.orphans(dry_run=dry_run)
    if as_json:
        out().print_json(json.dumps({"dry_run": dry_run, "versions": rows, "left_behind_bytes": left}))
        return
    for row in rows:
        out().print(f"{row['model']} version {row['version']}: {row['bytes']} bytes; {row['why']}", highlight=False)
    verb = "would be freed" if dry_run else "freed"
    out().print(f"{len(rows)} versions, {sum(row['bytes'] for row in rows) / 1e6:.1f} MB {verb}", highlight=False)
    if left:
        out().print(f"{left / 1e6:.1f} MB {verb} that uploads had left behind", highlight=False)


def say_pointer(pointer: Pointer, as_json: bool, text: str) -> None:
    """What became of a pointer."""
    if as_json:
        out().print_json(json.dumps(dataclasses.asdict(pointer)))
    else:
        out().print(text, highlight=False)
