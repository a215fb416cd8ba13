"""How a learner learns: every number that decides something, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from gaussline.worker.errors import SettingsError
from gaussline.worker.learning.watch import FAST_EVERY_S
from gaussline.worker.settings import Settings

KINDS = ("scores", "failures", "mean", "image", "new_camera")
"""Kinds of alarms."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of one learner. Times are working time of the line, told by events (see `EventClock`).

    Attributes:
        block: log entries of one cut; decisions and sums are made block by block.
        gate_p: a frame teaches only if its p-value is over this.
        quarantine_s: how long a frame waits for an objection or an alarm before it teaches.
        neighbourhood_s: how far an objection, or an alarm, reaches to either side of itself.
        max_weight: most frames that one event may stand for.
        half_life_frames, half_life_hours: after so many taught frames, or working hours, a frame counts half.
        level_half_life_frames: the same for single levels, in frames.
        reservoir_frames, reservoir_bytes, reservoir_age_s: bounds of the reservoir, the newest of which calibrates.
        bank_frames: newest labelled defects that are held.
        propose_frames, propose_minutes: a version is proposed after so many taught frames, or so much time.
        watch_every_s: least time between two looks for sudden drift; the stated false alarms are shared out among them.
        watch: whether drift is watched; without it nothing is alarmed and no camera is on probation.
        freeze_on: kinds of alarms during which their camera teaches nothing.
        vouched_frames: most frames that teach past the gate after an operator has confirmed a change.
    """

    block: int = 256
    gate_p: float = 0.05
    quarantine_s: float = 600.0
    neighbourhood_s: float = 60.0
    max_weight: float = 100.0
    half_life_frames: float | None = None
    half_life_hours: float | None = None
    level_half_life_frames: Mapping[str, float] = field(default_factory=dict)
    reservoir_frames: int = 2_000
    reservoir_bytes: int = 64 * 2**20
    reservoir_age_s: float = 7 * 86_400.0
    bank_frames: int = 200
    propose_frames: int | None = 5_000
    propose_minutes: float | None = None
    watch: bool = True
    watch_every_s: float = FAST_EVERY_S
    freeze_on: tuple[str, ...] = ("scores", "failures", "new_camera")
    vouched_frames: int = 10_000

    def __post_init__(self) -> None:
        if not 1 <= self.block <= 65_536:
            raise SettingsError(f"learn_block {self.block} is not between 1 and 65536 entries")
        if not 0.0 < self.gate_p < 1.0:
            raise SettingsError(f"learn_gate_p {self.gate_p} is not between 0 and 1")
        positive = {
            "learn_half_life_frames": self.half_life_frames,
            "learn_half_life_hours": self.half_life_hours,
            "learn_propose_frames": self.propose_frames,
            "learn_propose_minutes": self.propose_minutes,
            "learn_max_weight": self.max_weight,
            "learn_reservoir_frames": self.reservoir_frames,
            "learn_reservoir_max_bytes": self.reservoir_bytes,
            "learn_reservoir_max_age_s": self.reservoir_age_s,
            **{f"half-life of level {name}": value for name, value in self.level_half_life_frames.items()},
        }
        for name, value in positive.items():
            if value is not None and not value > 0:
                raise SettingsError(f"{name} {value} is not over 0")
        unknown = sorted(set(self.freeze_on) - set(KINDS))
        if unknown:
            raise SettingsError(f"learn_freeze_on names {', '.join(unknown)}, which is none of {', '.join(KINDS)}")
        if min(self.quarantine_s, self.neighbourhood_s) < 0:
            raise SettingsError("quarantine and neighbourhood are not below 0")

    @classmethod
    def of(cls, settings: Settings) -> Policy:
        """The policy that the settings state. Raises SettingsError."""
        return cls(
            block=settings.learn_block,
            gate_p=settings.learn_gate_p,
            quarantine_s=settings.learn_quarantine_s,
            half_life_frames=settings.learn_half_life_frames,
            half_life_hours=settings.learn_half_life_hours,
            level_half_life_frames=_by_level(settings.learn_level_half_life_frames),
            propose_frames=settings.learn_propose_frames,
            propose_minutes=settings.learn_propose_minutes,
            reservoir_frames=settings.learn_reservoir_frames,
            reservoir_bytes=settings.learn_reservoir_max_bytes,
            reservoir_age_s=settings.learn_reservoir_max_age_s,
            watch_every_s=settings.learn_watch_every_s,
            freeze_on=tuple(part.strip() for part in settings.learn_freeze_on.split(",") if part.strip()),
        )

    def to_json(self) -> dict[str, Any]:
        """JSON-able, for the lineage: with other rules the same log gives other moments."""
        return {
            key: dict(value) if isinstance(value, Mapping) else list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }


def _by_level(text: str) -> dict[str, float]:
    """`level=frames` joined by commas. Raises SettingsError."""
    found = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, frames = part.partition("=")
        try:
            found[name.strip()] = float(frames)
        except ValueError:
            raise SettingsError(f"learn_level_half_life_frames: {part!r} is no level=frames") from None
    return found
