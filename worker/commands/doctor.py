"""`gaussline doctor`: looks at a whole installation, and says what to do for each finding."""

from __future__ import annotations

import json
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from gaussline.worker.broker.client import Redis, open_redis, time_us, translated
from gaussline.worker.broker.line_state import LineReader
from gaussline.worker.broker.registry import Registry
from gaussline.worker.broker.seal import open_seal
from gaussline.worker.commands.access_findings import access, secret_files
from gaussline.worker.commands.console import out
from gaussline.worker.commands.doctor_replicas import replication
from gaussline.worker.commands.finding import Finding, Level, judge
from gaussline.worker.commands.options import Json, Line, RedisUrl, load_settings
from gaussline.worker.errors import BrokerError, GausslineError
from gaussline.worker.settings import Settings

EPILOG = """\b
Examples:
  gaussline doctor
  gaussline doctor --json | jq '.[] | select(.level == "fault")'

Exits with 1 where there is a fault, with 0 where there are only warnings."""
CLOCK_S = 0.5
"""Difference of two clocks that is told."""
SPARE_BYTES = 2 * 2**30


def doctor(
    metrics: Annotated[
        list[str] | None, typer.Option(help="A /metrics address that must answer; may be repeated.")
    ] = None,
    redis_url: RedisUrl = None,
    line: Line = None,
    as_json: Json = False,
) -> None:
    """Check Redis, its settings, memory, replicas, users, certificates, clocks, disk, device, models and workers."""
    settings = load_settings(redis_url=redis_url, line=line)
    findings = list(examine(settings, metrics or []))
    if as_json:
        out().print_json(json.dumps([asdict(finding) for finding in findings]))
    else:
        out().print(_table(findings))
    if any(finding.level is Level.FAULT for finding in findings):
        raise typer.Exit(1)


def examine(settings: Settings, metrics: list[str]) -> Iterator[Finding]:
    """Every finding, Redis first: without it there is little else to look at."""
    yield from _machine(settings)
    yield from secret_files(settings)
    client = open_redis(settings)
    try:
        before = time.time()
        now_us = time_us(client)
        after = time.time()
    except BrokerError as error:
        advice = error.advice or "use a user that may ask for the time, such as operator: docs/access.md"
        yield Finding("Redis", Level.FAULT, str(error), advice)
        return
    skew_s = abs(now_us / 1e6 - (before + after) / 2)
    yield judge(
        "clocks",
        skew_s <= CLOCK_S,
        f"this machine and Redis differ by {skew_s:.3f} s",
        "run chrony or systemd-timesyncd on both: deadlines and capture times are told by the camera computer's clock",
    )
    yield from access(client, settings)
    yield from _redis(client)
    yield from replication(client, settings)
    yield from _line(client, settings)
    yield from _backbones(client, settings)
    for address in metrics:
        yield _metrics(address)


# --- this machine ----------------------------------------------------------------------------------------------------
def _machine(settings: Settings) -> Iterator[Finding]:
    place = Path(settings.kept_store.removeprefix("file://")) if settings.kept_store.startswith("file://") else Path()
    folder = next((each for each in (place, *place.resolve().parents) if each.exists()), Path())
    free = shutil.disk_usage(folder).free
    yield judge(
        "disk",
        free > SPARE_BYTES,
        f"{free / 1e9:.1f} GB free at {folder.resolve()}",
        "make room: kept frames and Redis's append-only file need it",
    )
    if settings.weights is not None:
        yield judge(
            "weights",
            settings.weights.exists(),
            f"{settings.weights} is there" if settings.weights.exists() else f"{settings.weights} is not there",
            "set GAUSSLINE_WEIGHTS to the file (or the folder of files) that the model was fitted with",
        )
    try:
        import torch

        from gaussline.worker.vision.runtime import resolve_device

        device = resolve_device(settings.device)
        found = f"torch {torch.__version__}, device {device}"
        if device.startswith("cuda"):
            found += f": {torch.cuda.get_device_name(device)}"
        yield Finding("device", Level.GOOD, found)
    except ModuleNotFoundError:
        yield Finding("device", Level.WARNING, "torch is not installed", "pip install 'gaussline[worker]' for workers")
    except GausslineError as error:
        yield Finding("device", Level.FAULT, str(error), "set GAUSSLINE_DEVICE to auto, cpu, cuda or cuda:N")


# --- Redis -----------------------------------------------------------------------------------------------------------
def _redis(client: Redis) -> Iterator[Finding]:
    info = _ask(lambda: client.info())
    if isinstance(info, str):
        yield Finding("Redis", Level.WARNING, info, "let this user run INFO, to be told more")
        return
    version = str(info["redis_version"])
    number = tuple(int(part) for part in version.split(".")[:2])
    yield judge("version", number >= (6, 2), f"Redis {version}", "6.2 or later is needed")
    on = str(info.get("aof_enabled", 0)) == "1"
    yield judge(
        "persistence",
        on,
        "the append-only file is on" if on else "the append-only file is off",
        "config set appendonly yes, then config rewrite: else a restart forgets every frame in flight",
    )
    if on:
        wrote = info.get("aof_last_write_status", "ok") == "ok"
        yield judge(
            "append-only file", wrote, f"last write: {info.get('aof_last_write_status')}", "make room on its disk"
        )
    policy = str(info.get("maxmemory_policy", "noeviction"))
    yield judge(
        "eviction",
        policy == "noeviction",
        f"maxmemory-policy {policy}",
        "config set maxmemory-policy noeviction: any other drops frames and verdicts without a word",
    )
    limit, used = int(info.get("maxmemory", 0)), int(info["used_memory"])
    if limit == 0:
        yield Finding(
            "memory",
            Level.WARNING,
            f"{used / 1e6:.0f} MB used, no limit",
            "set maxmemory to two thirds of the machine's memory, so that producers are told before the kernel acts",
        )
    else:
        share = used / limit
        yield judge(
            "memory", share < 0.85, f"{share:.0%} of {limit / 1e6:.0f} MB used", "see docs/operations.md#redis-memory"
        )
    fsync = _ask(lambda: client.config_get("appendfsync"))
    if isinstance(fsync, dict) and fsync.get("appendfsync") == "everysec":
        yield Finding(
            "appendfsync",
            Level.GOOD,
            "everysec: a crash of Redis may forget its last two seconds; always does not, and costs little here",
        )


# --- the line --------------------------------------------------------------------------------------------------------
def _line(client: Redis, settings: Settings) -> Iterator[Finding]:
    try:
        state = LineReader(client, settings.line).read()
    except BrokerError as error:
        yield Finding("line", Level.FAULT, str(error), "use a user that may read the line's keys, such as operator")
        return
    off = [row.camera for row in state.ledger.rows if not row.balances]
    yield judge(
        "ledger",
        not off,
        f"cameras: {len(state.ledger.rows)}, all balance" if not off else f"does not balance: {', '.join(off)}",
        "see docs/operations.md#ledger-imbalance",
    )
    yield judge(
        "workers",
        state.alive > 0,
        f"{state.alive} alive",
        "start one: gaussline worker",
        Level.WARNING,
    )
    stable = [pointer for pointer in state.pointers if pointer.channel == "stable"]
    yield judge(
        "models",
        bool(stable),
        ", ".join(f"{each.model} version {each.version}" for each in stable) or "none is promoted",
        "gaussline fit FOLDER --promote",
        Level.WARNING,
    )
    refusing = [
        f"{worker.name}: {name} {why}"
        for worker in state.workers
        if worker.alive
        for name, why in worker.refused.items()
    ]
    if refusing:
        yield Finding("loading", Level.FAULT, "; ".join(refusing), "see docs/operations.md#model-load-failure")
    lagging = [name for name, seconds in state.subscribers.items() if seconds > 300.0]
    yield judge(
        "subscribers",
        not lagging,
        f"{len(state.subscribers)} registered" + (f", behind: {', '.join(lagging)}" if lagging else ""),
        "bring them back, or unregister those that are gone: gaussline subscribers unregister NAME",
        Level.WARNING,
    )


def _backbones(client: Redis, settings: Settings) -> Iterator[Finding]:
    """Whether this machine's weights are those that the promoted models were fitted with: their digests tell."""
    try:
        from gaussline.worker.contract.artefact import Artefact
        from gaussline.worker.contract.model import Model
        from gaussline.worker.engine.recheck import weights_for
        from gaussline.worker.vision.backbones import load_for
    except ModuleNotFoundError:
        return  # a camera computer, or a subscriber's
    registry = Registry(client, settings.line, seal=open_seal(settings))
    try:
        stable = [pointer for pointer in registry.pointers() if pointer.channel == "stable"]
    except BrokerError as error:
        yield Finding("weights", Level.WARNING, str(error), "let this user read pointers and versions")
        return
    for pointer in stable:
        what = f"weights of {pointer.model}"
        try:
            data = registry.fetch(pointer.digest)
            spec = Model.from_artefact(Artefact.unpack(data, pointer.digest)).spec
            load_for(spec, weights_for(spec, settings))
        except GausslineError as error:
            advice = "set GAUSSLINE_WEIGHTS to the file that the version was fitted with, or promote another version"
            yield Finding(what, Level.FAULT, f"version {pointer.version}: {error}", advice)
        else:
            random = spec.random_weights
            yield judge(
                what,
                not random,
                f"{spec.name} {spec.weights_digest[:12]}…, as version {pointer.version} wants them"
                + (": RANDOM, every verdict means nothing" if random else ""),
                "fit with pretrained weights: gaussline fit --weights FILE",
                Level.WARNING,
            )


def _metrics(address: str) -> Finding:
    try:
        with urllib.request.urlopen(address, timeout=3.0) as answer:
            size = len(answer.read())
    except (OSError, ValueError) as error:
        return Finding(
            f"metrics {address}", Level.FAULT, str(error), "is the process there, and its port open to here?"
        )
    return Finding(f"metrics {address}", Level.GOOD, f"{size / 1000:.0f} kB")


def _ask(call: Callable[[], Any]) -> Any:
    """An answer, or a text that says why there is none: not every user may ask everything."""
    try:
        with translated("asking Redis about itself"):
            return call()
    except BrokerError as error:
        return str(error)


def _table(findings: list[Finding]) -> Table:
    colours = {Level.GOOD: "green", Level.WARNING: "yellow", Level.FAULT: "bold red"}
    table = Table()
    for name in ("what", "", "found", "what to do"):
        table.add_column(name, overflow="fold", no_wrap=name == "")
    for finding in findings:
        level = Text(finding.level.value, style=colours[finding.level])
        table.add_row(finding.what, level, Text(finding.found), Text(finding.advice))
    return table
