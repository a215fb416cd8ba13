"""`gaussline verify`: score kept frames again with the version that judged them, and compare."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gaussline.worker.broker.kept import KeptFrames
from gaussline.worker.commands.console import err, out, progress
from gaussline.worker.commands.frames import bytes_of, verdict_of
from gaussline.worker.commands.mistakes import UNCONFIRMED
from gaussline.worker.commands.options import Connection, Json, Line, RedisUrl, open_line
from gaussline.worker.contract.verdict import Verdict
from gaussline.worker.errors import BrokerUnavailable, GausslineError, NotFound, SettingsError

if TYPE_CHECKING:
    from gaussline.worker.engine.recheck import Recheck

EPILOG = """\b
Examples:
  gaussline verify cam1:3:1042
  gaussline verify cam1:3:1042 cam2:1:7 --json
  gaussline verify --all-kept

A score is confirmed where it, and each level's distance, comes out within the tolerance (relative), and the decision is
the same. The version, its numeric mode and its weights are those of the verdict; the device may be another, and where
it is, that is said. Exit code 0: all confirmed; 1: a frame has expired or cannot be scored; 5: one is not confirmed."""
TOLERANCE = 1e-3
PAGE = 200


def verify(
    frames: Annotated[list[str] | None, typer.Argument(metavar="FRAME…", help="Verdicts' ids.")] = None,
    all_kept: Annotated[bool, typer.Option("--all-kept", help="Every kept frame of the line.")] = False,
    tolerance: Annotated[float, typer.Option(min=0, help="Relative difference up to which scores agree.")] = TOLERANCE,
    weights: Annotated[Path | None, typer.Option(help="Weights file; default GAUSSLINE_WEIGHTS.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    redis_url: RedisUrl = None,
    line: Line = None,
    as_json: Json = False,
) -> None:
    """Score kept frames again with the version that judged them: does every verdict come out the same?"""
    if bool(frames) == all_kept:
        raise SettingsError("verify: name frames, or give --all-kept")
    opened = open_line(redis_url, line, weights=weights, device=device)
    from gaussline.worker.engine.recheck import Recheck

    recheck = Recheck(opened.settings, opened.client)
    if all_kept:
        results = _all(opened, recheck, tolerance)
    else:
        results = [_one(opened, recheck, frame, tolerance) for frame in frames or ()]
    counts = {kind: sum(result["result"] == kind for result in results) for kind in KINDS}
    if as_json:
        shown = [result for result in results if result["result"] != "confirmed"] if all_kept else results
        out().print_json(json.dumps({"tolerance": tolerance, **counts, "frames": shown}))
    else:
        for result in results:
            if not all_kept or result["result"] in ("differs", "failed"):
                out().print(_sentence(result, tolerance), highlight=False, markup=False, soft_wrap=True)
        if all_kept or len(results) > 1:
            out().print(", ".join(f"{number} {kind}" for kind, number in counts.items()), highlight=False)
    if counts["differs"]:
        raise typer.Exit(UNCONFIRMED)
    # Frames may go while all of them are being verified; that is no fault of any verdict.
    if counts["failed"] or (counts["expired"] and not all_kept):
        raise typer.Exit(1)


KINDS = ("confirmed", "differs", "expired", "not judged", "failed")


def _all(opened: Connection, recheck: Recheck, tolerance: float) -> list[dict[str, Any]]:
    kept = [frame.id for page in _pages(KeptFrames(opened.client, opened.line)) for frame in page]
    if not kept:
        err().print(f"no kept frame on line {opened.line}", highlight=False)
    results = []
    with progress() as bar:
        task = bar.add_task("verifying", total=len(kept))
        for frame in kept:
            results.append(_one(opened, recheck, frame, tolerance))
            bar.advance(task)
    return results


def _pages(store: KeptFrames) -> Iterator[list[Any]]:
    skip = 0
    while page := store.list(PAGE, skip=skip):
        yield page
        skip += len(page)


def _one(opened: Connection, recheck: Recheck, frame: str, tolerance: float) -> dict[str, Any]:
    """What became of one frame: `result` is one of KINDS. Redis away ends the whole command."""
    try:
        verdict = verdict_of(opened, frame)
        if verdict.model is None:
            return {"frame": frame, "result": "not judged", "why": f"{verdict.reason}: {verdict.detail}"}
        kept = bytes_of(opened, verdict)
    except BrokerUnavailable:
        raise
    except NotFound as error:
        return {"frame": frame, "result": "expired", "why": str(error)}
    try:
        return _compared(verdict, recheck, kept, tolerance)
    except BrokerUnavailable:
        raise
    except GausslineError as error:
        return {"frame": frame, "result": "failed", "why": f"{type(error).__name__}: {error}"}


def _compared(verdict: Verdict, recheck: Recheck, kept: Any, tolerance: float) -> dict[str, Any]:
    assert verdict.model is not None
    assert verdict.score is not None
    look = recheck.look(kept, verdict.model)
    said = {"score": verdict.score, **(verdict.level_scores or {})}
    now = {"score": look.score, **look.level_scores}
    apart = {name: _apart(said[name], now[name]) if name in now else float("inf") for name in said}
    worst = max(apart, key=lambda name: apart[name])
    # Within the tolerance of the threshold either decision is right.
    near = verdict.threshold is not None and _apart(verdict.threshold, verdict.score) <= tolerance
    decided = "fail" if look.failed else "pass"
    same = apart[worst] <= tolerance and (decided == verdict.decision.value or near)
    return {
        "frame": verdict.id,
        "result": "confirmed" if same else "differs",
        "model": verdict.model.name,
        "version": verdict.model.version,
        "score": verdict.score,
        "score_now": look.score,
        "decision": verdict.decision.value,
        "decision_now": decided,
        "worst": worst,
        "difference": apart[worst],
        "numeric_mode": look.numeric_mode,
        "device": verdict.device,
        "device_now": look.device,
    }


def _apart(one: float, other: float) -> float:
    return abs(one - other) / max(abs(one), abs(other), 1e-12)


def _sentence(result: dict[str, Any], tolerance: float) -> str:
    kind = result["result"]
    if "why" in result:
        return f"{result['frame']}: {kind}: {result['why']}"
    said = (
        f"{result['frame']}: {kind}: {result['model']} version {result['version']} gave {result['score']:.6g} and "
        f"gives {result['score_now']:.6g} ({result['decision']}, {result['decision_now']}); "
        f"{result['worst']} differs most, by {result['difference']:.1e}, and {tolerance:g} is the tolerance"
    )
    if result["device"] != result["device_now"]:
        before = result["device"] or "an unknown device"
        said += f". It was judged on {before} and verified on {result['device_now']}, both in {result['numeric_mode']}"
    return said
