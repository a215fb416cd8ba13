"""The trunk of a network up to its last wanted level: feature maps in, regions pooled; frozen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import nn
from torch.nn import functional

from gaussline.worker.contract.spec import BackboneSpec
from gaussline.worker.errors import ModelError

Taken = TypeVar("Taken")


class Backbone(nn.Module):
    """The stages of a trunk up to its last wanted level; in evaluation mode, frozen.

    Attributes:
        spec: what its features are.
    """

    def __init__(self, stages: Sequence[nn.Module], taps: Sequence[int], spec: BackboneSpec) -> None:
        """Args: stages: of the whole trunk. taps: the stage behind each level of `spec.cuts`."""
        super().__init__()
        self.stages = nn.ModuleList(stages[: max(taps) + 1])
        # Levels may be asked for in any order; the trunk gives them as it runs.
        self._order = {tap: place for place, tap in enumerate(taps)}
        self._grids = tuple(cut.grid for cut in spec.cuts)
        self.spec = spec
        self.eval().requires_grad_(False)

    def maps(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps (n, c, h, w) a level of `spec.cuts`, in the trunk's own dtype.

        Args:
            x: normalised input (n, 3, height, width), any floating dtype.
        """
        return self._run(x, lambda level, grid: [level])

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Features (n, c) a level of the spec, region by region: spatial means, float32 in every numeric mode."""
        return self._run(x, pool_regions)

    def features_and_maps(self, x: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Both of one pass; each map is pooled while it is at hand, not read again from memory at the end."""
        both = self._run(x, lambda level, grid: [(level, pool_regions(level, grid))])
        return [region for _, regions in both for region in regions], [level for level, _ in both]

    def pooled(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The features of what `maps` gave."""
        return [region for level, grid in zip(maps, self._grids, strict=True) for region in pool_regions(level, grid)]

    def _run(self, x: torch.Tensor, take: Callable[[torch.Tensor, int], list[Taken]]) -> list[Taken]:
        x = x.to(self.dtype)
        found: list[list[Taken]] = [[]] * len(self._order)
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in self._order:
                place = self._order[index]
                found[place] = take(x, self._grids[place])
        return [taken for level in found for taken in level]

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and activations."""
        return next(self.parameters()).dtype


def pool(maps: torch.Tensor) -> torch.Tensor:
    """Spatial mean in float32: (n, c, h, w) to float32 (n, c). In bfloat16 the sum would be off by 1 to 5 %."""
    return maps.mean((2, 3), dtype=torch.float32)


def pool_regions(maps: torch.Tensor, grid: int) -> list[torch.Tensor]:
    """Spatial means in float32 of each region, row by row: (n, c, h, w) to grid² times (n, c).

    Raises ModelError where the map has fewer cells a side than the grid.
    """
    if grid == 1:
        return [pool(maps)]
    if min(maps.shape[2:]) < grid:
        raise ModelError(
            f"a feature map of {maps.shape[2]} x {maps.shape[3]} cells cannot be cut into {grid} x {grid} regions: "
            "take a coarser grid, or a larger input"
        )
    means = functional.adaptive_avg_pool2d(maps.float(), grid)
    return [means[:, :, row, column].contiguous() for row in range(grid) for column in range(grid)]
