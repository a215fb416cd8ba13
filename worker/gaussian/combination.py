"""From level distances to one score a frame."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gaussline.worker.errors import FitError

Array = NDArray[np.float64]


class Rule(StrEnum):
    """How distances are combined. `sum` is the paper's (roots first, then the sum; no rescaling)."""

    SUM = "sum"
    MEAN = "mean"
    MAX = "max"
    STANDARDISED = "standardised"


@dataclass(frozen=True, slots=True)
class Combination:
    """A rule, with what it learnt.

    Attributes:
        offset, scale: a level, for `standardised`: the median and the scaled median absolute deviation of the distances
            of normal frames that the fit has not seen; the score is the sum of (distance - offset) / scale, from 0 on.
        groups: how many distances belong to each level, where levels are cut into regions: a level is as far out as its
            farthest region. Empty: one distance a level.
    """

    rule: Rule = Rule.SUM
    offset: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    groups: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if any(group < 1 for group in self.groups):
            raise FitError(f"groups of {self.groups} distances are none")
        if self.groups and self.scale and len(self.groups) != len(self.scale):
            raise FitError(f"{len(self.scale)} scales do not go with {len(self.groups)} groups of distances")
        learnt = np.asarray([*self.offset, *self.scale], np.float64)
        if len(self.offset) != len(self.scale) or (self.rule is Rule.STANDARDISED) != bool(learnt.size):
            raise FitError(
                f"a {self.rule.value} combination does not go with {len(self.offset)} offsets, {len(self.scale)} scales"
            )
        if not np.isfinite(learnt).all() or any(scale <= 0.0 for scale in self.scale):
            raise FitError("offsets and scales of a combination are not finite, or a scale is not positive")

    @classmethod
    def learn(cls, rule: Rule, distances: ArrayLike, groups: tuple[int, ...] = ()) -> Combination:
        """Learn a rule from (n, L) distances of normal frames, or (n, sum(groups)) ones. Raises FitError."""
        if rule is not Rule.STANDARDISED:
            return cls(rule, groups=groups)
        d = cls(groups=groups).by_level(distances)
        if d.ndim != 2 or len(d) < 2 or not d.shape[1] or not np.isfinite(d).all():
            raise FitError(
                f"the standardised combination needs finite distances of at least 2 normal frames, got {d.shape}"
            )
        offset = np.median(d, axis=0)
        scale = 1.4826 * np.median(np.abs(d - offset), axis=0)
        if (scale <= 0).any():
            raise FitError(
                f"the distances of level {int(np.argmin(scale)) + 1} do not vary: they cannot be standardised"
            )
        return cls(rule, tuple(offset.tolist()), tuple(scale.tolist()), groups)

    def by_level(self, distances: ArrayLike) -> Array:
        """(n, sum(groups)) distances of regions to (n, L) of levels: the farthest region's. Raises FitError."""
        d = np.asarray(distances, np.float64)
        if not self.groups:
            return d
        if d.shape[-1:] != (sum(self.groups),):
            raise FitError(f"distances have shape {d.shape}, the combination has {sum(self.groups)} regions")
        starts = np.concatenate([[0], np.cumsum(self.groups[:-1])]).astype(np.intp)
        return np.asarray(np.maximum.reduceat(d, starts, axis=-1), np.float64)

    def farthest(self, distances: ArrayLike) -> NDArray[np.intp]:
        """(n, sum(groups)) distances of regions to (n, L): which of each level's regions is the farthest."""
        d = np.asarray(distances, np.float64)
        if not self.groups:
            return np.zeros(d.shape, np.intp)
        parts = np.split(d, np.cumsum(self.groups)[:-1], axis=1)
        return np.stack([part.argmax(axis=1) for part in parts], axis=1)

    def combine(self, distances: ArrayLike) -> Array:
        """(n, L) distances, or (n, sum(groups)), to (n,) scores. Raises FitError for another number than was learnt."""
        return self.combine_levels(self.by_level(distances))

    def combine_levels(self, distances: ArrayLike) -> Array:
        """(n, L) distances of levels to (n,) scores. Raises FitError for another number than was learnt."""
        d = np.asarray(distances, np.float64)
        if self.scale and d.shape[-1:] != (len(self.scale),):
            raise FitError(f"distances have shape {d.shape}, the combination has learnt {len(self.scale)} levels")
        result: Array
        if self.rule is Rule.SUM:
            result = d.sum(axis=-1)
        elif self.rule is Rule.MEAN:
            result = d.mean(axis=-1)
        elif self.rule is Rule.MAX:
            result = d.max(axis=-1)
        else:
            # Nearer to the mean than the median is not more normal: below the median nothing is credited.
            result = np.maximum((d - np.asarray(self.offset)) / np.asarray(self.scale), 0.0).sum(axis=-1)
        return result

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        said = {"rule": self.rule.value, "offset": list(self.offset), "scale": list(self.scale)}
        return said | ({"groups": list(self.groups)} if self.groups else {})

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Combination:
        """From `to_json`. Raises FitError."""
        try:
            offset, scale = (tuple(float(value) for value in fields[name]) for name in ("offset", "scale"))
            return cls(Rule(fields["rule"]), offset, scale, tuple(int(group) for group in fields.get("groups", ())))
        except (KeyError, ValueError, TypeError) as error:
            raise FitError(f"a stored combination is none: {type(error).__name__}: {error}") from None
