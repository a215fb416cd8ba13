"""The model: a backbone spec, one Gaussian a level, and a working point. Immutable; named by its artefact's digest.

Needs the numerics of `gaussline[worker]`; producers and subscribers never import it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gaussline.worker.contract.artefact import Artefact
from gaussline.worker.contract.regions import cuts
from gaussline.worker.contract.spec import BackboneSpec
from gaussline.worker.errors import ArtefactError, FitError
from gaussline.worker.gaussian.calibration import WorkingPoint
from gaussline.worker.gaussian.combination import Combination
from gaussline.worker.gaussian.density import Gaussian
from gaussline.worker.gaussian.moments import Moments

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Decisions:
    """What a model says of frames: (n,) each.

    Attributes:
        scores: combined distances.
        p_values: chances that a normal frame is at least as far out, as the working point's method has them.
        failed: whether the frame fails.
    """

    scores: Array
    p_values: Array
    failed: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """What scores a frame.

    Attributes:
        gaussians: one a level of the spec, in its order.
        moments: what the Gaussians were fitted from, so that a learner can go on from here; may be empty.
        info: how it came about, for a person: frames, seeds, sources; JSON-able.
        folds: of a cross-conformal working point: the Gaussians of each fold's fit. A p-value is of all of them.
        trained_on: (n,) uint64, beginnings of the SHA-256 of the image files that were fitted on, where there were
            files: a calibration must not see them again.
    """

    spec: BackboneSpec
    gaussians: tuple[Gaussian, ...]
    combination: Combination
    working_point: WorkingPoint
    moments: tuple[Moments, ...] = ()
    info: Mapping[str, Any] = field(default_factory=dict)
    folds: tuple[tuple[Gaussian, ...], ...] = ()
    trained_on: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))

    def __post_init__(self) -> None:
        widths = tuple(gaussian.dimension for gaussian in self.gaussians)
        if widths != self.spec.channels:
            raise ArtefactError(
                f"the model's Gaussians have widths {widths}, its levels have {self.spec.channels} channels"
            )
        learnt = tuple(level.dimension for level in self.moments)
        if learnt and learnt != widths:
            raise ArtefactError(f"the model's moments have widths {learnt}, its Gaussians {widths}")
        if len(self.folds) != len(self.working_point.folds):
            raise ArtefactError(
                f"the model has fits of {len(self.folds)} folds, its working point {len(self.working_point.folds)}"
            )
        if any(tuple(gaussian.dimension for gaussian in fold) != widths for fold in self.folds):
            raise ArtefactError("the model's folds have not the widths of its levels")
        levels = len(self.spec.cuts)
        if self.combination.scale and len(self.combination.scale) != levels:
            raise ArtefactError(f"the model combines {len(self.combination.scale)} levels and has {levels}")
        if self.combination.groups != groups_of(self.spec.levels):
            raise ArtefactError(f"the model combines groups of {self.combination.groups}, which its levels are not")

    def distances(self, features: list[ArrayLike]) -> Array:
        """(n, d) features a level to (n, L) Mahalanobis distances, float64: the reference that workers are held to."""
        pairs = zip(self.gaussians, features, strict=True)
        return np.stack([gaussian.mahalanobis(level) for gaussian, level in pairs], axis=-1)

    def scores(self, features: list[ArrayLike]) -> Array:
        """(n, d) features a level to (n,) scores."""
        return self.combination.combine(self.distances(features))

    def decide(self, distances: ArrayLike, folds: Sequence[ArrayLike] = ()) -> Decisions:
        """(n, L) distances, and (n, L) by each fold's fit where there are folds, to decisions."""
        scores = self.combination.combine(distances)
        judged = scores
        if self.folds:
            if len(folds) != len(self.folds):
                raise ArtefactError(f"distances of {len(folds)} folds were given, the model has {len(self.folds)}")
            judged = np.stack([self.combination.combine(fold) for fold in folds], axis=-1)
        return Decisions(scores, self.working_point.p_value(judged), self.working_point.fails(judged))

    def judge(self, features: Sequence[ArrayLike]) -> Decisions:
        """(n, d) features a level to decisions, in float64: the reference that workers are held to."""
        sides = [[g.mahalanobis(x) for g, x in zip(fold, features, strict=True)] for fold in self.folds]
        return self.decide(self.distances(list(features)), [np.stack(side, axis=-1) for side in sides])

    def to_artefact(self) -> Artefact:
        """As one immutable artefact."""
        arrays: dict[str, NDArray[Any]] = {"calibration.scores": self.working_point.scores}
        for index, gaussian in enumerate(self.gaussians):
            arrays |= {f"level{index}.{name}": array for name, array in gaussian.to_arrays().items()}
        for index, moments in enumerate(self.moments):
            arrays |= {f"moments{index}.{name}": array for name, array in moments.to_arrays().items()}
        for fold, gaussians in enumerate(self.folds):
            for index, gaussian in enumerate(gaussians):
                arrays |= {f"fold{fold}.{index}.{name}": array for name, array in gaussian.to_arrays().items()}
        if self.trained_on.size:
            arrays["trained_on"] = self.trained_on
        manifest: dict[str, Any] = {
            "kind": "model",
            "spec": self.spec.to_dict(),
            "gaussians": [gaussian.describe() for gaussian in self.gaussians],
            "combination": self.combination.to_json(),
            "working_point": self.working_point.to_json(),
            "moments": len(self.moments),
            "info": dict(self.info),
        }
        if self.folds:
            manifest["folds"] = [[gaussian.describe() for gaussian in fold] for fold in self.folds]
        return Artefact.pack(manifest, arrays)

    @classmethod
    def from_artefact(cls, artefact: Artefact, *, moments: bool = True) -> Model:
        """From an artefact whose digest was checked; without its moments for who only scores. Raises ArtefactError."""
        manifest = artefact.manifest
        try:
            if manifest["kind"] != "model":
                raise ArtefactError(f"the artefact is a {manifest['kind']!r:.40}, not a model")
            gaussians = tuple(
                Gaussian.restore(_part(artefact, f"level{index}."), described)
                for index, described in enumerate(manifest["gaussians"])
            )
            learnt = int(manifest["moments"]) if moments else 0
            return cls(
                BackboneSpec.from_dict(manifest["spec"]),
                gaussians,
                Combination.from_json(manifest["combination"]),
                WorkingPoint.restore(manifest["working_point"], artefact.arrays["calibration.scores"]),
                tuple(Moments.from_arrays(_part(artefact, f"moments{index}.")) for index in range(learnt)),
                manifest["info"],
                tuple(
                    tuple(
                        Gaussian.restore(_part(artefact, f"fold{fold}.{index}."), described)
                        for index, described in enumerate(gaussians)
                    )
                    for fold, gaussians in enumerate(manifest.get("folds", ()))
                ),
                np.asarray(artefact.arrays.get("trained_on", np.empty(0)), np.uint64),
            )
        except (KeyError, TypeError, ValueError, FitError) as error:
            raise ArtefactError(f"malformed model artefact: {type(error).__name__}: {error}") from None


def groups_of(levels: Sequence[str]) -> tuple[int, ...]:
    """How many regions each level is cut into, as a combination wants it: nothing where no level is cut."""
    counts = tuple(cut.regions for cut in cuts(levels, [1] * len(levels)))
    return counts if any(count > 1 for count in counts) else ()


def _part(artefact: Artefact, prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in artefact.arrays.items() if name.startswith(prefix)}
