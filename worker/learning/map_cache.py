"""Heat maps that were computed before, on disk: found by what the image, the backbone and the fit *are*.

A map costs a pass of the backbone, because feature maps are too large to be kept (1.4 MB an image of MobileNetV2); what
is made of them is small, one float32 number a cell of each level (68 kB). Every fit makes other ones, so a map goes by
the fit's own numbers: other training images, other options or another estimate find nothing here.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np

from gaussline.worker.contract.heat_map import Explanation
from gaussline.worker.contract.spec import BackboneSpec
from gaussline.worker.errors import ContractError
from gaussline.worker.learning.content_store import ContentStore
from gaussline.worker.learning.fit import Fitted

REVISION = 1
"""Of what this package makes of feature maps; raised when that changes."""


class MapCache:
    """Explanations under one fit, in a store.

    Args:
        mode: what else features depend on, such as `cpu`; letters, digits and dashes.

    Attributes:
        hits, misses: counts of `get`.
    """

    def __init__(self, store: ContentStore, spec: BackboneSpec, mode: str, fitted: Fitted) -> None:
        self._store = store
        self._folder = f"maps{REVISION}-{spec.digest[:32]}-{mode}-{fit_digest(fitted)[:32]}"
        self.hits = self.misses = 0

    def get(self, image: str) -> Explanation | None:
        """The explanation of an image (its digest), or None."""
        found = self._store.get(self._place(image), _unpack)
        if found is None:
            self.misses += 1
        else:
            self.hits += 1
        return found

    def put(self, image: str, explanation: Explanation) -> None:
        """Keep the explanation of one image."""
        self._store.put(self._place(image), explanation.to_bytes())

    def _place(self, image: str) -> str:
        return f"{self._folder}/{image[:2]}/{image}.map"


def fit_digest(fitted: Fitted) -> str:
    """SHA-256 (hex) of all that a score is made with: every Gaussian, and how levels are combined."""
    digest = hashlib.sha256(json.dumps(fitted.combination.to_json(), sort_keys=True).encode())
    for gaussian in fitted.gaussians:
        for array in (gaussian.mean, gaussian.whitening):
            digest.update(f"{array.shape}".encode())
            digest.update(np.ascontiguousarray(array, np.float64).data)
    return digest.hexdigest()


def _unpack(body: bytes) -> Explanation | None:
    try:
        return Explanation.from_bytes(body)
    except ContractError:
        return None
