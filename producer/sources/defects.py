"""Blemishes of a rendered plate: what lies on the metal, in the part's own coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Blemish:
    """Planes (S, S), float32.

    Attributes:
        cover: 0..1, where it is.
        brightness: added to the metal's.
        tint: 0..1, how much light it swallows.
    """

    cover: Plane
    brightness: Plane
    tint: Plane


def draw_blemish(kind: str, u: Plane, v: Plane, severity: float, pixel: float, draw: np.random.Generator) -> Blemish:
    """A `scratch` or a `spot` somewhere on the plate; the size and the contrast follow the severity, 0..1."""
    return _scratch(u, v, severity, pixel, draw) if kind == "scratch" else _spot(u, v, severity, pixel, draw)


def _place(draw: np.random.Generator) -> tuple[float, float]:
    """A point on metal: away from the holes by rejection."""
    while True:
        x, y = float(draw.uniform(-0.62, 0.62)), float(draw.uniform(-0.45, 0.45))
        bore = np.hypot(x + 0.13, y) > 0.30
        slot = abs(x - 0.36) > 0.11 or abs(y) > 0.28
        corner = np.hypot(abs(x) - 0.58, abs(y) - 0.40) > 0.14
        if bore and slot and corner:
            return x, y


def _scratch(u: Plane, v: Plane, severity: float, pixel: float, draw: np.random.Generator) -> Blemish:
    """A bent groove, thin at both ends: one flank bright, one dark."""
    x, y = _place(draw)
    length = 0.12 + 0.5 * severity * float(draw.uniform(0.6, 1.0))
    angle = float(draw.uniform(0, np.pi))
    bend = float(draw.normal(0.0, 0.35))
    width = np.float32(max(0.7 * pixel, (0.006 + 0.007 * severity) * float(draw.uniform(0.8, 1.2))))
    # In coordinates along and across the scratch a bent line is a parabola.
    along = (u - np.float32(x)) * np.float32(np.cos(angle)) + (v - np.float32(y)) * np.float32(np.sin(angle))
    across = (v - np.float32(y)) * np.float32(np.cos(angle)) - (u - np.float32(x)) * np.float32(np.sin(angle))
    across -= np.float32(bend) * along * along
    taper = np.clip(np.float32(1.0) - (along / np.float32(length / 2)) ** 2, 0.0, 1.0)
    groove = np.exp(-((across / width) ** 2)) * np.sqrt(taper)
    ridge = np.exp(-(((across - np.float32(1.5) * width) / width) ** 2)) * np.sqrt(taper)
    depth = np.float32(0.05 + 0.26 * severity)
    return Blemish(
        cover=np.clip(groove + ridge * np.float32(0.5), 0.0, 1.0),
        brightness=depth * (np.float32(0.8) * ridge - groove),
        tint=np.zeros_like(u),
    )


def _spot(u: Plane, v: Plane, severity: float, pixel: float, draw: np.random.Generator) -> Blemish:
    """A dried drop: an irregular outline, soft at the edge and darkest there."""
    x, y = _place(draw)
    radius = max(2.0 * pixel, 0.025 + 0.10 * severity * float(draw.uniform(0.5, 1.0)))
    dx, dy = u - np.float32(x), v - np.float32(y)
    angle = np.arctan2(dy, dx)
    outline = np.ones_like(u)
    for order in (2, 3, 5):
        outline += np.float32(draw.normal(0.0, 0.22 / order)) * np.cos(
            np.float32(order) * angle + np.float32(draw.uniform(0, 2 * np.pi))
        )
    distance = np.hypot(dx, dy) / (np.float32(radius) * np.maximum(outline, np.float32(0.3)))
    cover = np.clip((np.float32(1.15) - distance) / np.float32(0.3), 0.0, 1.0)
    edge = np.exp(-(((distance - np.float32(0.85)) / np.float32(0.18)) ** 2))
    strength = np.float32(0.05 + 0.33 * severity)
    return Blemish(
        cover=cover,
        brightness=np.zeros_like(u),
        tint=np.clip(strength * (cover * np.float32(0.75) + edge * np.float32(0.35)), 0.0, 0.9),
    )
