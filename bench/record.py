"""What one bench has measured so far: raw numbers of every run, in one JSON file that later parts add to."""

from __future__ import annotations

import json
import os
import platform
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from bench.line import Usage
from gaussline.worker.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Conditions:
    """Under what the numbers were taken; parts of one record agree in all of it."""

    machine: str
    redis: str
    appendfsync: str
    backbone: str
    mode: str
    bfloat16_in_hardware: bool


@dataclass(slots=True)
class Record:
    """One bench.

    Attributes:
        runtime: how the backbone was run by the bare loop and by the worker.
        runs: side -> one entry a run: frames_per_second, cpu_ms_per_frame, peak_mb, frames.
        extra: half load, memory and the like, by name.
    """

    conditions: Conditions
    runtime: dict[str, Any] = field(default_factory=dict)
    runs: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    extra: dict[str, dict[str, float]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, conditions: Conditions, *, fresh: bool) -> Record:
        """A new record, or the one in `path`. Raises SettingsError where that was taken under other conditions."""
        if fresh or not path.is_file():
            return cls(conditions)
        fields = json.loads(path.read_text("utf-8"))
        found = Conditions(**fields["conditions"])
        if found != conditions:
            raise SettingsError(f"{path} was measured under {found}, not under {conditions}: use --fresh")
        return cls(found, fields["runtime"], fields["runs"], fields["extra"])

    def add(self, side: str, rate: float, usage: Usage, frames: int) -> None:
        """One run of a side."""
        self.runs.setdefault(side, []).append(
            {
                "frames_per_second": rate,
                "cpu_ms_per_frame": 1000 * usage.cpu_s / frames,
                "peak_mb": usage.peak_bytes / 1e6,
                "frames": frames,
            }
        )

    def median(self, side: str, what: str = "frames_per_second") -> float | None:
        """Median over a side's runs, None where it was not measured."""
        runs = self.runs.get(side)
        return statistics.median(run[what] for run in runs) if runs else None

    def save(self, path: Path, checks: list[dict[str, Any]]) -> None:
        """Write the file, with what was reached."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**asdict(self), "checks": checks}, indent=2) + "\n", "utf-8")


def machine() -> str:
    """Processor, cores and software, for the record."""
    name = platform.processor() or "unknown"
    kinds = ""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text("utf-8").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
        flags = set(next((line for line in lines if line.startswith("flags")), "").split())
        known = {"avx512_bf16": "AVX512-BF16", "avx512f": "AVX512", "avx2": "AVX2"}
        kinds = next((f", {shown}" for flag, shown in known.items() if flag in flags), "")
    return f"{name}, {os.cpu_count()} cores{kinds}; Python {platform.python_version()}, torch {torch.__version__}"


def bfloat16_in_hardware() -> bool:
    """Whether the CPU multiplies bfloat16 itself; elsewhere it is slower than float32."""
    return "AVX512-BF16" in machine()
