"""An alarm: what the watch over a camera found changed, and the sentence that says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Alarm:
    """A change that began, or ended, at `at_us` of working time.

    Attributes:
        kind: scores, failures, mean, image, new_camera.
        test: which of the kind's tests.
        since_us: working time of the first frame of the newest blocks: it may have begun so early.
        facts: what was compared, JSON-able.
    """

    kind: str
    camera: str
    test: str
    began: bool
    at_us: int
    since_us: int
    facts: dict[str, Any]


def sentence(alarm: Alarm, clock: str) -> str:
    """One line for a person, such as: lighting changed on camera cam7 at 14:03 (exposure -18 %)."""
    facts: Mapping[str, Any] = alarm.facts
    if facts.get("turned"):
        return f"{_NAMES[alarm.kind]} is compared anew on camera {alarm.camera} from {clock} on ({facts['what']})"
    if not alarm.began:
        return f"{_NAMES[alarm.kind]} is as before on camera {alarm.camera} at {clock} ({facts['what']})"
    if alarm.kind == "image":
        name = str(facts["what"])
        said = _IMAGE[name]
        return f"{said} changed on camera {alarm.camera} at {clock} ({name} {_signed(facts['change'])})"
    if alarm.kind == "mean":
        where = ", ".join(f"channel {channel} {change:+.1f}" for channel, change in facts.get("directions", ()))
        return f"features moved on camera {alarm.camera} at {clock} ({facts['what']}: {facts['after']:.2f}; {where})"
    if alarm.kind == "new_camera":
        return f"the model does not fit the new camera {alarm.camera} at {clock} ({facts['after']:.0%} of frames fail)"
    shares = f"{facts['before']:.1%} before, {facts['after']:.1%} now"
    return f"{_NAMES[alarm.kind]} changed on camera {alarm.camera} at {clock} ({facts['what']}: {shares})"


def _signed(change: float) -> str:
    return f"{'+' if change >= 0 else '−'}{abs(change):.0%}".replace("%", " %")


_NAMES = {
    "scores": "the distribution of scores",
    "failures": "the share of failures",
    "image": "the picture",
    "mean": "the features' mean",
    "new_camera": "the new camera",
}
_IMAGE = {
    "exposure": "lighting",
    "contrast": "contrast",
    "sharpness": "focus",
    "red": "colour balance",
    "blue": "colour balance",
}
