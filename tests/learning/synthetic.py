"""Features without images, for the tests of the fit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gaussline.worker.contract.spec import BackboneSpec

CHANNELS = (6, 10, 24)
SPEC = BackboneSpec(
    name="synthetic",
    weights_digest="0" * 64,
    weights_source="none",
    random_weights=True,
    levels=("shallow", "middle", "deep"),
    channels=CHANNELS,
    input_size=(8, 8),
)


def normal(frames: int, seed: int = 0) -> list[NDArray[np.float32]]:
    """(n, d) float32 features a level of normal frames, of one distribution whatever the seed."""
    shape, draw = np.random.default_rng(99), np.random.default_rng(seed)
    levels = []
    for width in CHANNELS:
        mixed = shape.standard_normal((width, width)) * np.geomspace(1.0, 0.01, width)
        frame = draw.standard_t(6, (frames, width)) @ mixed + shape.standard_normal(width)
        levels.append(frame.astype(np.float32))
    return levels
