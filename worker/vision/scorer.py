"""Mahalanobis distances on the device: one matrix product a level with the whitening matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gaussline.worker.contract.model import Model
from gaussline.worker.contract.spec import BackboneSpec


@dataclass(frozen=True, slots=True, eq=False)
class PreparedModel:
    """A model's Gaussians on a device.

    Attributes:
        means: (d,) a level, float32.
        whitenings: (d, k) a level, float32: the transposed whitening matrix.
    """

    means: tuple[torch.Tensor, ...]
    whitenings: tuple[torch.Tensor, ...]


class Scorer:
    """Scores features of one backbone under any number of models, which share its pass."""

    def __init__(self, spec: BackboneSpec, device: str = "cpu") -> None:
        self._spec = spec
        self._device = torch.device(device)

    def prepare(self, model: Model) -> PreparedModel:
        """Move a model to the device. Raises BackboneMismatch, naming what differs, where it is of another backbone."""
        self._spec.check_against(model.spec)
        return PreparedModel(
            tuple(torch.as_tensor(g.mean, dtype=torch.float32, device=self._device) for g in model.gaussians),
            tuple(
                torch.as_tensor(g.whitening, dtype=torch.float32, device=self._device).T.contiguous()
                for g in model.gaussians
            ),
        )

    def distances(self, features: list[torch.Tensor], prepared: PreparedModel) -> NDArray[np.float64]:
        """(n, d) features a level to (n, L) distances. Centred before the product: a mean far from zero costs no digits."""
        with torch.inference_mode():
            levels = [
                torch.linalg.vector_norm((level - mean) @ whitening, dim=1)
                for level, mean, whitening in zip(features, prepared.means, prepared.whitenings, strict=True)
            ]
            distances: NDArray[np.float64] = torch.stack(levels, dim=1).double().cpu().numpy()
            return distances
