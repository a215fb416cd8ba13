"""Protocols of an evaluation: which images are fitted on, and which are scored. No run scores what it was fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from gaussline.worker.errors import FitError, SourceError
from gaussline.worker.learning.dataset import Dataset

Rows = NDArray[np.intp]
PAPER_FOLDS = 5
PAPER_SEED = 0


class Protocol(StrEnum):
    """How images are divided.

    split: fit on a seeded share of the normal images (of a folder with its own split: on its training images) and
        score all others.
    folds: k folds over the normal images, each scored by the fit on the other k - 1, with all defective images; in a
        folder with its own split, over all its normal images together.
    paper: k folds over the *training* images, fit on k - 1 of them, every fit scored on the whole test set; of a folder
        without its own split, a seeded share of the normal images is the training set.
    """

    SPLIT = "split"
    FOLDS = "folds"
    PAPER = "paper"


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """One run: rows to fit on, and rows to score. Raises FitError where a row is on both sides.

    Attributes:
        seed: of the division.
        fold: which of the folds is held out, from 0; None where there are none.
    """

    seed: int
    fold: int | None
    train: Rows
    normal: Rows
    defective: Rows

    def __post_init__(self) -> None:
        for name, tested in (("normal", self.normal), ("defective", self.defective)):
            both = np.intersect1d(self.train, tested)
            if both.size:
                raise FitError(f"{both.size} images are fitted on and scored as {name}: a leak")
            if not tested.size:
                raise FitError(f"no {name} images are left to score: fit on fewer")
        if np.intersect1d(self.normal, self.defective).size:
            raise FitError("an image is scored as normal and as defective")


def plans(
    data: Dataset,
    protocol: Protocol,
    *,
    train_share: float = 0.7,
    folds: int = PAPER_FOLDS,
    seeds: Sequence[int] = (0,),
) -> list[Plan]:
    """The runs of a protocol. Raises SourceError or FitError where images are too few, or numbers make no sense."""
    if not 0.0 < train_share < 1.0:
        raise FitError(f"training share {train_share} is not between 0 and 1")
    if not seeds:
        raise FitError("no seeds: at least one run is needed")
    normal = np.flatnonzero([sample.normal for sample in data.samples])
    defective = np.flatnonzero([not sample.normal for sample in data.samples])
    trains = np.flatnonzero([sample.normal and sample.fixed_split == "train" for sample in data.samples])
    tests = np.flatnonzero([sample.normal and sample.fixed_split == "test" for sample in data.samples])
    own_split = bool(trains.size)
    if own_split and not tests.size and protocol is not Protocol.FOLDS:
        raise SourceError(f"{data.root}: test/good holds no images: without normal test images there is no AUROC")
    if protocol is Protocol.SPLIT:
        if own_split:
            return [Plan(seeds[0], None, trains, tests, defective)]
        return [Plan(seed, None, *_share(normal, train_share, seed), defective) for seed in seeds]
    made = []
    for seed in seeds:
        if protocol is Protocol.FOLDS:
            for fold, (rest, held) in enumerate(_folds(normal, folds, seed)):
                made.append(Plan(seed, fold, rest, held, defective))
        else:
            train, test = (trains, tests) if own_split else _share(normal, train_share, seed)
            for fold, (rest, _) in enumerate(_folds(np.sort(train), folds, seed)):
                made.append(Plan(seed, fold, rest, test, defective))
    return made


def leaks(plan: Plan, digests: Sequence[str]) -> int:
    """How many scored images have the same bytes as one that was fitted on."""
    fitted = {digests[row] for row in plan.train}
    return sum(digests[row] in fitted for row in (*plan.normal, *plan.defective))


def _share(rows: Rows, share: float, seed: int) -> tuple[Rows, Rows]:
    order = rows[np.random.default_rng(seed).permutation(rows.size)]
    count = round(share * rows.size)
    return order[:count], order[count:]


def _folds(rows: Rows, folds: int, seed: int) -> list[tuple[Rows, Rows]]:
    """(the others, the fold) for each fold: those of scikit-learn's KFold(folds, shuffle=True, random_state=seed)."""
    if not 2 <= folds <= rows.size:
        raise FitError(f"{folds} folds of {rows.size} normal images: give 2 to {rows.size}")
    # The old generator on purpose: it is what published results were divided with.
    parts = np.array_split(np.random.RandomState(seed).permutation(rows.size), folds)
    made = []
    for part in parts:
        held = np.zeros(rows.size, np.bool_)
        held[part] = True
        made.append((rows[~held], rows[held]))
    return made
