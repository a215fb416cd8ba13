"""Mahalanobis distances on the device: one matrix product a level with the whitening matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from gaussline.worker.contract.model import Decisions, Model
from gaussline.worker.contract.spec import BackboneSpec
from gaussline.worker.errors import ModelError
from gaussline.worker.gaussian.density import Gaussian
from gaussline.worker.vision.numeric import numeric_mode

Array = NDArray[np.float64]
SLAB = 256
"""Columns of a whitening matrix that a CPU multiplies at a time: narrower ones save more, and cost more calls."""


@dataclass(frozen=True, slots=True, eq=False)
class PreparedModel:
    """A model's Gaussians on a device.

    Attributes:
        means: (d,) a level, float64.
        whitenings: of each level (d', b), float32: the transposed whitening matrix in slabs of b columns, each without
            the rows below the d' first ones, which are zero.
        folds: the same of each fold's fit, where the working point is cross-conformal.
    """

    means: tuple[torch.Tensor, ...]
    whitenings: tuple[tuple[torch.Tensor, ...], ...]
    folds: tuple[PreparedModel, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Device memory it takes."""
        own = sum(tensor.nbytes for level in (self.means, *self.whitenings) for tensor in level)
        return own + sum(fold.size_bytes for fold in self.folds)


class Scorer:
    """Scores features of one backbone under any number of models, which share its pass.

    The product is in float32, in every numeric mode: it agrees with the float64 reference (`Model.distances`) to 1e-4
    relative. Centring is in float64, because rounding a mean would be magnified along directions of low variance.
    """

    def __init__(self, spec: BackboneSpec, device: str = "cpu") -> None:
        self._spec = spec
        self._device = torch.device(device)

    def prepare(self, model: Model) -> PreparedModel:
        """Move a model to the device.

        Raises BackboneMismatch, naming what differs, where it was fitted with another backbone; ModelError where
        float32 cannot hold its whitening.
        """
        self._spec.check_against(model.spec)
        levels = model.spec.levels
        folds = tuple(self._prepare(levels, fold) for fold in model.folds)
        return replace(self._prepare(levels, model.gaussians), folds=folds)

    def _prepare(self, levels: Sequence[str], gaussians: Sequence[Gaussian]) -> PreparedModel:
        whitenings = []
        for level, gaussian in zip(levels, gaussians, strict=True):
            # Contiguous as (d, k): a product with a transposed view takes twice as long for a few rows. numpy and torch
            # let the interpreter go meanwhile: frames are judged beside it.
            rounded = np.array(gaussian.whitening, np.float32)
            whitening = torch.from_numpy(rounded).T
            if not torch.isfinite(whitening).all():
                raise ModelError(f"the whitening of level {level} does not fit float32: its condition is too high")
            slab = SLAB if self._device.type == "cpu" else whitening.shape[1]
            whitenings.append(tuple(part.contiguous().to(self._device) for part in slabs(whitening, slab)))
        means = tuple(torch.from_numpy(np.array(g.mean, np.float64)).to(self._device) for g in gaussians)
        return PreparedModel(means, tuple(whitenings))

    def warm_up(self, prepared: PreparedModel) -> None:
        """Score nothing in particular once, so that the first frame finds memory and kernels ready."""
        blank = [torch.zeros((1, len(mean)), device=self._device) for mean in prepared.means]
        for each in (prepared, *prepared.folds):
            self.distances(blank, each)

    def decide(
        self, features: Sequence[torch.Tensor], model: Model, prepared: PreparedModel
    ) -> tuple[Array, Decisions]:
        """(n, d) features a level to (n, L) distances and what the model decides by them."""
        distances = self.distances(features, prepared)
        return distances, model.decide(distances, [self.distances(features, fold) for fold in prepared.folds])

    def distances(self, features: Sequence[torch.Tensor], prepared: PreparedModel) -> NDArray[np.float64]:
        """(n, d) float32 features a level to (n, L) distances (not squared). NaN where a feature is not finite."""
        with torch.inference_mode(), numeric_mode("float32", self._device):
            levels = [
                _norm((level.double() - mean).float(), whitening)
                for level, mean, whitening in zip(features, prepared.means, prepared.whitenings, strict=True)
            ]
            distances: NDArray[np.float64] = torch.stack(levels, dim=1).double().cpu().numpy()
            return distances


def slabs(whitening: torch.Tensor, width: int) -> list[torch.Tensor]:
    """(d, k) transposed whitening in slabs of at most `width` columns, each without the zeros that it ends in.

    The inverse of a Cholesky factor is half zeros. For a batch of a few frames the product is as slow as the matrix is
    read, so leaving them out is worth what it saves of the bytes: four tenths at 1,280 features.
    """
    found = []
    for start in range(0, whitening.shape[1], width):
        slab = whitening[:, start : start + width]
        there = torch.nonzero(slab.any(dim=1))
        found.append(slab[: int(there[-1]) + 1 if len(there) else 1])
    return found


def _norm(centred: torch.Tensor, whitening: Sequence[torch.Tensor]) -> torch.Tensor:
    """(n, d) centred features to (n,) lengths of their whitened rows."""
    parts = [torch.linalg.vector_norm(centred[:, : len(slab)] @ slab, dim=1) for slab in whitening]
    lengths: torch.Tensor = parts[0] if len(parts) == 1 else torch.linalg.vector_norm(torch.stack(parts), dim=0)
    return lengths
