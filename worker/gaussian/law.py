"""Laws of a normal frame's score: what turns a score into a p-value where calibration scores alone do not.

Each law is an assumption, which conformal p-values do without; the method that uses it says what is assumed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from gaussline.worker.errors import FitError

Array = NDArray[np.float64]


class LawKind(StrEnum):
    """Which law.

    chi_squared: the square follows chi-squared of `features`. hotelling: its multiple by `scale` follows
    F(`features`, `frames` - `features`). pareto: over `start` lies a share `share` of scores, beyond it by a
    generalised Pareto law of `shape` and `scale`. gumbel: the score follows a Gumbel law of `location` and `scale`.
    """

    CHI_SQUARED = "chi_squared"
    HOTELLING = "hotelling"
    PARETO = "pareto"
    GUMBEL = "gumbel"


_NEEDED: Final[Mapping[LawKind, tuple[str, ...]]] = {
    LawKind.CHI_SQUARED: ("features",),
    LawKind.HOTELLING: ("features", "frames"),
    LawKind.PARETO: ("start", "share", "shape", "scale"),
    LawKind.GUMBEL: ("location", "scale"),
}
_POSITIVE: Final = frozenset({"features", "frames", "share", "scale"}) - {"start"}
_FLAT: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Law:
    """A law with its parameters."""

    kind: LawKind
    parameters: Mapping[str, float]

    def __post_init__(self) -> None:
        have = self.parameters
        if set(have) != set(_NEEDED[self.kind]) or not all(math.isfinite(value) for value in have.values()):
            raise FitError(f"a {self.kind.value} law has the finite parameters {_NEEDED[self.kind]}, not {dict(have)}")
        if any(have[name] <= 0.0 for name in have if name in _POSITIVE) or have.get("share", 0.5) >= 1.0:
            raise FitError(f"a {self.kind.value} law cannot have {dict(have)}")
        if self.kind is LawKind.HOTELLING and have["frames"] <= have["features"]:
            raise FitError(f"the F law of {have['features']:g} features needs more frames than {have['frames']:g}")

    def p_value(self, scores: ArrayLike) -> Array:
        """(m,) scores to (m,) chances that a normal frame's score is at least as large.

        Of a Pareto tail: 1 up to `start`, where the calibration scores themselves know better.
        """
        s = np.asarray(scores, np.float64)
        have = self.parameters
        if self.kind is LawKind.CHI_SQUARED:
            values = stats.chi2.sf(s * s, have["features"])
        elif self.kind is LawKind.HOTELLING:
            n, k = have["frames"], have["features"]
            values = stats.f.sf(s * s * (n * (n - k) / (k * (n * n - 1.0))), k, n - k)
        elif self.kind is LawKind.GUMBEL:
            values = -special.expm1(-np.exp(-(s - have["location"]) / have["scale"]))
        else:
            over = np.maximum(s - have["start"], 0.0) / have["scale"]
            shape = have["shape"]
            tail = np.exp(-over) if abs(shape) < _FLAT else np.maximum(1.0 + shape * over, 0.0) ** (-1.0 / shape)
            values = np.where(s > have["start"], have["share"] * tail, 1.0)
        return np.asarray(values, np.float64)

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        return {"kind": self.kind.value, **{name: float(value) for name, value in self.parameters.items()}}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Law:
        """The reverse of `to_json`. Raises FitError."""
        try:
            kind = LawKind(fields["kind"])
            return cls(kind, {name: float(fields[name]) for name in fields if name != "kind"})
        except (KeyError, ValueError, TypeError) as error:
            raise FitError(f"a stored law is none: {type(error).__name__}: {error}") from None
