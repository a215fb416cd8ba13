"""Regions: a level cut into a grid of equal parts, each with a feature vector and a Gaussian of its own.

The mean over the whole picture thins a small defect out by the share of the picture it covers; the mean over its own
region does so by a share that is `grid²` times as large. A region is named after its level, `features.17@3/0.2`: row 0,
column 2 of a grid of 3 x 3. A name without `@` is the whole level.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gaussline.worker.errors import ArtefactError

MAX_GRID: Final = 16
_NAME: Final = re.compile(r"(?P<level>[^@]+)@(?P<grid>[1-9][0-9]?)/(?P<row>[0-9]{1,2})\.(?P<column>[0-9]{1,2})")


@dataclass(frozen=True, slots=True)
class Cut:
    """One level and how it is cut; its regions stand together, row by row.

    Attributes:
        level: name of the whole level.
        grid: regions a side; 1 is the whole level.
        channels: features of each region.
    """

    level: str
    grid: int
    channels: int

    @property
    def regions(self) -> int:
        """How many."""
        return self.grid * self.grid

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the regions; of the level itself where it is whole."""
        return region_names(self.level, self.grid)


def region_names(level: str, grid: int) -> tuple[str, ...]:
    """Names of a level's regions, row by row; of the level itself where it is not cut."""
    if grid == 1:
        return (level,)
    return tuple(f"{level}@{grid}/{row}.{column}" for row in range(grid) for column in range(grid))


def cuts(names: Sequence[str], channels: Sequence[int]) -> tuple[Cut, ...]:
    """Read names of regions back. Raises ArtefactError where a level's regions are not all there, in their order."""
    found: list[Cut] = []
    place = 0
    while place < len(names):
        match = _NAME.fullmatch(names[place])
        level, grid = (match["level"], int(match["grid"])) if match else (names[place], 1)
        if (not match and "@" in level) or grid > MAX_GRID:
            raise ArtefactError(f"level {level!r:.80} names no region of a grid of 2 to {MAX_GRID}")
        cut = Cut(level, grid, channels[place])
        there = slice(place, place + cut.regions)
        if tuple(names[there]) != cut.names or set(channels[there]) != {cut.channels}:
            raise ArtefactError(f"level {level!r:.80} has not all regions of its grid of {grid}, in their order")
        found.append(cut)
        place += cut.regions
    if len({cut.level for cut in found}) != len(found):
        raise ArtefactError("a level is named twice")
    return tuple(found)


def level_names(names: Sequence[str]) -> tuple[str, ...]:
    """The whole levels behind names of regions. Raises ArtefactError as `cuts` does."""
    return tuple(cut.level for cut in cuts(names, [1] * len(names)))


def bounds(index: int, grid: int, size: int) -> slice:
    """Cells of part `index` of `grid` along a side of `size` cells: those that it touches; neighbours may share one."""
    return slice(index * size // grid, -(-(index + 1) * size // grid))
