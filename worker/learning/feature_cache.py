"""Features that were computed before, on disk: found by what the image and the backbone *are*, never by their names.

One file an image: a safetensors body, numbers behind a checked header, no code.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from gaussline.worker.contract.spec import BackboneSpec
from gaussline.worker.learning.content_store import ContentStore

Levels = list[NDArray[np.float32]]


class FeatureCache:
    """Features in a store.

    Attributes:
        hits, misses: counts of `get`.
    """

    def __init__(self, store: ContentStore) -> None:
        self.store = store
        self.hits = self.misses = 0

    def get(self, image: str, spec: BackboneSpec, mode: str) -> Levels | None:
        """(d,) float32 features a level of an image (its digest) under a backbone, or None.

        Args:
            mode: what else the features depend on, such as `cpu`; letters, digits and dashes.
        """
        levels = self.store.get(_place(image, spec, mode), lambda body: _unpack(body, spec))
        if levels is None:
            self.misses += 1
        else:
            self.hits += 1
        return levels

    def put(self, image: str, spec: BackboneSpec, mode: str, levels: Sequence[NDArray[np.float32]]) -> None:
        """Keep the features of one image."""
        body = save({str(index): np.ascontiguousarray(level, np.float32) for index, level in enumerate(levels)})
        self.store.put(_place(image, spec, mode), body)


def _place(image: str, spec: BackboneSpec, mode: str) -> str:
    return f"{spec.digest[:32]}-{mode}/{image[:2]}/{image}.features"


def _unpack(body: bytes, spec: BackboneSpec) -> Levels | None:
    try:
        arrays = load(body)
        levels = [arrays[str(index)] for index in range(len(spec.levels))]
    except (SafetensorError, KeyError):
        return None
    fits = all(
        level.shape == (width,) and level.dtype == np.float32
        for level, width in zip(levels, spec.channels, strict=True)
    )
    return levels if fits else None
