"""How much a line needs, from what was measured: workers, Redis, network, learner, and where the first limit lies.

Pure arithmetic. Rates that were measured on one machine are carried over in the simplest way, in proportion, and each
line of a plan says what it was made of. docs/scaling.md writes the same arithmetic down and holds it to a run.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from gaussline.worker.errors import SettingsError
from gaussline.worker.settings import Settings

BUSY = 0.7
"""Share of its time that anything is planned to be busy: beyond it queues grow long (at 0.9, nine services long)."""
SPARE = 1.25
"""Redis's memory over what it holds: fragmentation, buffers of clients, the copy-on-write of a rewrite."""
BASE_BYTES = 30_000_000
"""Redis with a line's scripts and small keys."""
CPU = "cpu"


@dataclass(frozen=True, slots=True)
class Measured:
    """What one machine gave; `python -m bench.capacity` writes it.

    Attributes:
        machine, date: where and when.
        cores: of that machine.
        images_per_second: backbone -> device -> rate of one process.
        decode_ms_per_megapixel: encoding -> CPU time of one thread.
        worker_frames_per_second: of one process with a null backbone: the pipeline's own ceiling.
        message_us, byte_ns: Redis's CPU time for one message on its whole way, and for each of its bytes.
        payload_factor, message_bytes: what Redis holds of a payload (it rounds up), and of a message beside it.
        verdict_bytes: what it holds for a verdict.
        feature_bytes: of one feature event, by backbone.
        learner_frames_per_second: by backbone.
    """

    machine: str
    date: str
    cores: int
    images_per_second: dict[str, dict[str, float]]
    decode_ms_per_megapixel: dict[str, float]
    worker_frames_per_second: float
    message_us: float
    byte_ns: float
    payload_factor: float
    message_bytes: float
    verdict_bytes: float
    feature_bytes: dict[str, float]
    learner_frames_per_second: dict[str, float]

    @classmethod
    def read(cls, file: Path | None = None) -> Measured:
        """A file, or the one that comes with the package. Raises SettingsError."""
        try:
            text = (
                resources.files("gaussline.worker.commands").joinpath("measured.json").read_text("utf-8")
                if file is None
                else file.read_text("utf-8")
            )
            return cls(**json.loads(text))
        except OSError as error:
            raise SettingsError(f"--measured {file} cannot be read: {error.strerror or error}") from None
        except (ValueError, TypeError) as error:
            raise SettingsError(f"--measured {file} is no file of bench.capacity: {error}") from None


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be judged.

    Attributes:
        rate: frames a second of one camera.
        images_per_second: of one worker, where the reader has measured it; it goes before the file's.
        outage_s: how long judging may stop before producers are told to wait.
        network_gbit: of Redis's machine, each way.
        features: share of the frames whose features are written, for a learner.
    """

    cameras: int
    rate: float
    frame_bytes: int
    megapixels: float
    backbone: str
    encoding: str = "jpeg"
    device: str = CPU
    cores: int | None = None
    images_per_second: float | None = None
    outage_s: float = 60.0
    network_gbit: float = 1.0
    features: float = 0.0

    @property
    def frames_per_second(self) -> float:
        """Of all cameras."""
        return self.cameras * self.rate


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that is needed: how much, in words, and what it was made of."""

    what: str
    amount: str
    why: str


@dataclass(frozen=True, slots=True)
class Limit:
    """Where something ends: frames a second that it carries, and that over the load's."""

    what: str
    frames_per_second: float
    headroom: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What a load needs.

    Attributes:
        workers: with one more than the load needs, so that one may be away.
        lines: Redis servers to cut the load into, a line or more each.
        notes: what was carried over beyond what was measured, and what does not fit.
    """

    frames_per_second: float
    megabytes_per_second: float
    workers: int
    lines: int
    redis_cpu_share: float
    redis_memory_bytes: int
    network_share: float
    learner_share: float
    needs: list[Need]
    limits: list[Limit]
    measured_on: str
    notes: list[str] = field(default_factory=list)

    @property
    def first_limit(self) -> Limit:
        """The one that is reached first as the load grows."""
        return min(self.limits, key=lambda limit: limit.headroom)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self) | {"first_limit": asdict(self.first_limit)}


def plan(load: Load, measured: Measured, settings: Settings) -> Plan:
    """Work it out. Raises SettingsError where nothing was measured that it could be made of."""
    fps = load.frames_per_second
    notes: list[str] = []
    needs: list[Need] = []
    alone = _workers_alone(load, measured, notes)
    workers = math.ceil(fps / (BUSY * alone)) + 1
    needs.append(
        Need("workers", str(workers), f"{alone:,.1f} frames/s each, busy for {BUSY:.0%}, and one that may be away")
    )

    message_s = (measured.message_us + measured.byte_ns * load.frame_bytes / 1e3) / 1e6
    redis_share = fps * message_s
    needs.append(
        Need("Redis, CPU", f"{redis_share:.0%} of a core", f"{1e6 * message_s:,.0f} µs a message of its one thread")
    )

    wire = fps * load.frame_bytes
    network_share = wire * 8 / (load.network_gbit * 1e9)
    needs.append(
        Need(
            "Redis, network",
            f"{wire / 1e6:,.0f} MB/s in and out",
            f"{network_share:.0%} of {load.network_gbit:g} Gbit/s each way; the append-only file takes as much",
        )
    )
    memory, parts = _memory(load, measured, settings, notes)
    needs.append(Need("Redis, memory", f"maxmemory {memory / 1e9:,.1f} GB", parts))

    limits = [
        Limit("Redis's one thread", BUSY / message_s, BUSY / redis_share),
        Limit(
            f"{load.network_gbit:g} Gbit/s at Redis",
            BUSY * load.network_gbit * 1e9 / 8 / load.frame_bytes,
            BUSY / network_share,
        ),
    ]
    learner_share = 0.0
    if load.features > 0.0:
        learner = measured.learner_frames_per_second.get(load.backbone)
        if learner is None:
            notes.append(f"no learner of {load.backbone} was measured: its load is not told")
        else:
            learner_share = fps * load.features / learner
            needs.append(Need("learner", f"{learner_share:.0%} of a core", f"{learner:,.0f} frames/s of one process"))
            limits.append(Limit("the learner", BUSY * learner / load.features, BUSY / learner_share))
    lines = max(1, math.ceil(1.0 / min(limit.headroom for limit in limits if limit.what != "the learner")))
    if lines > 1:
        notes.append(f"one Redis does not carry this: cut the cameras into {lines} lines with a Redis each")
    return Plan(
        fps,
        wire / 1e6,
        workers,
        lines,
        redis_share,
        memory,
        network_share,
        learner_share,
        needs,
        limits,
        f"{measured.machine}, {measured.date}",
        notes,
    )


def _workers_alone(load: Load, measured: Measured, notes: list[str]) -> float:
    """Frames a second of one worker at full load: backbone, decoding, and the pipeline's own ceiling."""
    decode = measured.decode_ms_per_megapixel
    if load.encoding not in decode:
        raise SettingsError(f"--encoding {load.encoding}: measured are {', '.join(sorted(decode))}")
    decode_s = decode[load.encoding] * load.megapixels / 1e3
    rate = load.images_per_second
    if rate is None:
        rates = measured.images_per_second.get(load.backbone, {})
        if load.device not in rates:
            have = ", ".join(f"{name} on {'/'.join(each)}" for name, each in sorted(measured.images_per_second.items()))
            raise SettingsError(
                f"{load.backbone} on {load.device} was not measured ({have}): measure it there with 'python -m "
                "bench.capacity' and name its file with --measured, or say what a worker gives with "
                "--images-per-second (a worker logs it when it is ready)"
            )
        rate = rates[load.device]
    else:
        notes.append(f"{rate:g} images/s of one worker is your own number")
    if load.device == CPU:
        cores = load.cores or measured.cores
        if load.images_per_second is None and cores != measured.cores:
            notes.append(f"measured on {measured.cores} cores, carried over to {cores} in proportion")
            rate *= cores / measured.cores
        # Backbone and decoding share the cores.
        alone = 1.0 / (1.0 / rate + decode_s / cores)
    else:
        cores = load.cores or measured.cores
        alone = min(rate, cores / decode_s if decode_s else rate)
        if alone < rate:
            notes.append(f"decoding on {cores} cores holds the device at {alone:,.0f} of {rate:,.0f} frames/s")
    return min(alone, measured.worker_frames_per_second)


def _memory(load: Load, measured: Measured, settings: Settings, notes: list[str]) -> tuple[int, str]:
    """What Redis must hold, and of what it is made; `notes` gets the bounds that come first."""
    fps = load.frames_per_second
    backlog = fps * load.outage_s * (measured.payload_factor * load.frame_bytes + measured.message_bytes)
    if backlog > settings.line_budget_bytes:
        holds_s = settings.line_budget_bytes / (fps * load.frame_bytes)
        notes.append(
            f"line_budget_bytes holds {holds_s:.0f} s of frames, less than the {load.outage_s:.0f} s asked for"
        )
    camera = load.rate * load.outage_s * load.frame_bytes
    if camera > settings.camera_budget_bytes:
        holds_s = settings.camera_budget_bytes / (load.rate * load.frame_bytes)
        notes.append(f"camera_budget_bytes holds {holds_s:.0f} s of a camera")
    wanted = fps * settings.verdict_min_age_s * measured.verdict_bytes
    verdicts = min(wanted, float(settings.verdict_max_bytes))
    if wanted > settings.verdict_max_bytes:
        hours = settings.verdict_max_bytes / (fps * measured.verdict_bytes) / 3600.0
        asked = settings.verdict_min_age_s / 3600
        notes.append(
            f"verdict_max_bytes holds {hours:.1f} h of verdicts, less than the {asked:.0f} h of verdict_min_age_s: "
            f"raise it to {wanted / 1e9:.1f} GB, or subscribers have that long to read"
        )
    parts = {
        f"{load.outage_s:.0f} s of frames": backlog,
        "verdicts": verdicts,
        "kept frames": float(settings.kept_max_bytes) if settings.kept_store == "redis" else 0.0,
        "heat maps": float(settings.heat_maps_max_bytes) if settings.heat_maps != "off" else 0.0,
        "dead letters": float(settings.dead_max_bytes),
    }
    if load.features > 0.0:
        width = measured.feature_bytes.get(load.backbone, 20_000.0)
        parts["feature events"] = min(
            float(settings.features_max_bytes), fps * load.features * width * (settings.learn_quarantine_s + 60.0)
        )
    total = SPARE * (BASE_BYTES + sum(parts.values()))
    told = ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in parts.items() if size)
    return math.ceil(total), f"{told}; a quarter more for what Redis itself needs"
