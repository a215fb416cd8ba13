"""A trial: a version that is looked at beside the stable one, on whose frames, for how long, and what ends it.

Two channels hold trials. `canary` decides for a share of the frames, or for whole cameras; `shadow` is scored for every
frame and decides nothing. Both stand in the pointer of their channel, so that a trial and its rules move together.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from typing import Any, Final

from gaussline.worker.contract.keys import check_name
from gaussline.worker.errors import ContractError, SettingsError

STABLE: Final = "stable"
CANARY: Final = "canary"
SHADOW: Final = "shadow"
CHANNELS: Final = (STABLE, CANARY, SHADOW)
MAX_CAMERAS: Final = 1024
DEFAULT_RULES: Final = "extra_fails > 2% or lost_fails > 30%"
DEFAULT_FRAMES: Final = 500
_UNITS_S: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


@dataclass(frozen=True, slots=True)
class Selection:
    """Whose frames a canary decides.

    Attributes:
        share: of all frames, 0 … 1, by a stable hash of the frame's identity: every worker draws the same frames.
        cameras: cameras that it decides for altogether.
    """

    share: float = 0.0
    cameras: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0:
            raise ContractError(f"a canary's share {self.share} is not between 0 and 1")
        if len(self.cameras) > MAX_CAMERAS:
            raise ContractError(f"a canary names {len(self.cameras)} cameras, {MAX_CAMERAS} at most")
        for camera in self.cameras:
            check_name("camera", camera)

    def takes(self, camera: str, identity: str) -> bool:
        """Whether the canary decides this frame."""
        if camera in self.cameras:
            return True
        # A hash of its own: drawn by the same one as kept frames, a canary would see no frame that is never kept.
        drawn = hashlib.blake2b(identity.encode(), digest_size=4, person=b"gl-canary").digest()
        return int.from_bytes(drawn, "big") < self.share * 2**32


@dataclass(frozen=True, slots=True)
class Trial:
    """How long a version is looked at, and what ends it.

    Attributes:
        for_s: least time before it may be promoted.
        min_frames: least number of frames judged by both versions before anything is concluded.
        abort_if: the rules that roll it back (see `gaussline.worker.learning.trial_rules`).
        promote: whether it is promoted when its time is over and no rule speaks against it; else it is held.
    """

    for_s: float
    abort_if: str = DEFAULT_RULES
    min_frames: int = DEFAULT_FRAMES
    promote: bool = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.for_s) and self.for_s >= 0.0):
            raise ContractError(f"a trial of {self.for_s} s is none")
        if self.min_frames < 1:
            raise ContractError(f"a trial over {self.min_frames} frames is none")


def to_fields(selection: Selection | None, trial: Trial | None) -> dict[str, Any]:
    """As fields of a pointer's JSON."""
    fields: dict[str, Any] = {}
    if selection is not None:
        fields["selection"] = {"share": selection.share, "cameras": list(selection.cameras)}
    if trial is not None:
        fields["trial"] = {
            "for_s": trial.for_s,
            "abort_if": trial.abort_if,
            "min_frames": trial.min_frames,
            "promote": trial.promote,
        }
    return fields


def from_fields(record: dict[str, Any]) -> tuple[Selection | None, Trial | None]:
    """From a pointer's JSON; what it does not name is None. Raises ContractError."""
    try:
        chosen, trial = record.get("selection"), record.get("trial")
        return (
            None if chosen is None else Selection(float(chosen["share"]), tuple(chosen["cameras"])),
            None
            if trial is None
            else Trial(float(trial["for_s"]), str(trial["abort_if"]), int(trial["min_frames"]), bool(trial["promote"])),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ContractError(f"a pointer's trial is malformed: {type(error).__name__}: {error}") from None


def parse_share(text: str) -> float:
    """`10%` or `0.1` as 0.1. Raises SettingsError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(%?)\s*", text)
    share = -1.0 if match is None else float(match[1]) / (100.0 if match[2] else 1.0)
    if not 0.0 < share <= 1.0:
        raise SettingsError(f"{text!r} is no share of frames: write 10% or 0.1")
    return share


def parse_duration(text: str) -> float:
    """`30m`, `45s`, `2h`, `1d` or `1h30m` in seconds. Raises SettingsError."""
    parts = re.findall(r"(\d+(?:\.\d*)?)\s*([smhd])", text.strip())
    if not parts or re.sub(r"(\d+(?:\.\d*)?)\s*([smhd])\s*", "", text.strip()):
        raise SettingsError(f"{text!r} is no length of time: write 45s, 30m, 2h or 1h30m")
    return sum(float(number) * _UNITS_S[unit] for number, unit in parts)
