"""The tables of a record, and what of the targets it reaches."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from bench.record import Record

FLAT = 1.05


def checks(record: Record) -> list[dict[str, Any]]:
    """Every target that was measured: what, the value, the target; reached where the value is at least the target."""
    found: list[dict[str, Any]] = []

    def check(what: str, value: float, target: float) -> None:
        found.append({"what": what, "value": value, "target": target, "reached": value >= target})

    bare, worker, plain = (record.median(side) for side in ("bare", "worker", "plain"))
    if worker and bare:
        check("worker / bare loop", worker / bare, 0.90)
    if worker and plain:
        check("worker / plain worker", worker / plain, 3.0 if record.conditions.bfloat16_in_hardware else 1.8)
    for side, frames in (("null_1", 1), ("null_4", 4)):
        if rate := record.median(side):
            check(f"null backbone, {frames} frame(s) a message, frames/s", rate, 4000.0)
    if rate := record.median("producer_1"):
        check("Producer.send, 50 kB, 1 frame a message, frames/s", rate, 3000.0)
    if rate := record.median("producer_4"):
        check("Producer.send_many, 50 kB, 4 frames a message, frames/s", rate, 3000.0)
    if half := record.extra.get("half_load"):
        check(f"p99 at half load: bound {half['bound_ms']:.1f} ms over it", half["bound_ms"] / half["p99_ms"], 1.0)
    if memory := record.extra.get("memory"):
        check(
            "memory flat: 1.05 x at 10,000 frames over at 100,000", FLAT * memory["early_mb"] / memory["late_mb"], 1.0
        )
    return found


def show(record: Record, console: Console) -> None:
    """Print what there is."""
    lanes = record.runtime.get("lanes", 1)
    how = f"{record.conditions.mode}, batch {record.runtime.get('batch_size')}, {lanes} lane(s)"
    names = {
        "bare": f"(a) bare loop, {how}",
        "worker": f"(b) this worker, {how}",
        "plain": "(c) plain worker, float32, contiguous, batch 1",
        "plain_same_mode": f"(d) plain worker, {record.conditions.mode}, channels_last, batch 1",
        "null_1": "(e) this worker, null backbone, raw 224 x 224, 1 frame a message",
        "null_4": "(e) the same, 4 frames a message",
        "trace_off": "(h) as (e), with metrics, tracing off, no frame traced",
        "trace_carried": "(h) the same, every frame carries a trace",
        "trace_64th": "(h) tracing on, one frame of 64 traced",
        "trace_all": "(h) tracing on, every frame traced",
        "producer_1": "(f) Producer.send, 50 kB, 1 frame a message",
        "producer_4": "(f) Producer.send_many, 50 kB, 4 frames a message",
        "admission": "(f) bare admission, 50 kB, pipelined by 16",
    }
    table = Table(title=f"medians; Redis {record.conditions.redis}, appendfsync {record.conditions.appendfsync}")
    for column in ("side", "frames/s", "of runs", "CPU ms a frame", "peak MB"):
        table.add_column(column, justify="left" if column == "side" else "right")
    for side, name in names.items():
        if side in record.runs:
            rates = sorted(run["frames_per_second"] for run in record.runs[side])
            shown = [record.median(side, what) or 0.0 for what in ("frames_per_second", "cpu_ms_per_frame", "peak_mb")]
            spread = f"{rates[0]:.0f}-{rates[-1]:.0f}"
            table.add_row(name, f"{shown[0]:.1f}", spread, f"{shown[1]:.2f}", f"{shown[2]:.0f}")
    console.print(table)
    worker, same = record.median("worker"), record.median("plain_same_mode")
    if worker and same:
        console.print(f"worker / plain worker in the same mode: {worker / same:.2f}")
    for name, values in record.extra.items():
        console.print(f"{name}: " + ", ".join(f"{key} {value:.1f}" for key, value in values.items()))
    targets = Table(title="targets")
    for column in ("what", "measured", "target", ""):
        targets.add_column(column, justify="left" if column == "what" else "right")
    for each in checks(record):
        reached = "reached" if each["reached"] else "missed"
        targets.add_row(each["what"], f"{each['value']:.2f}", f"{each['target']:.2f}", reached)
    console.print(targets)
