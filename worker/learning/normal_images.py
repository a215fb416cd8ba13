"""The normal images of a folder, read for a fit or a calibration: features, digests, and what a person should know."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gaussline.worker.errors import SourceError
from gaussline.worker.learning.augmentation import Augmentation
from gaussline.worker.learning.dataset import Sample, read_dataset
from gaussline.worker.learning.features import Features, image_batches
from gaussline.worker.learning.survey import images as count_of
from gaussline.worker.learning.survey import mixed_channels, refuse, survey
from gaussline.worker.vision.features import FeatureExtractor
from gaussline.worker.vision.image_header import read_header
from gaussline.worker.vision.preprocess import stack

Progress = Callable[[int, int], None]
"""Told of every batch: how many images it had, and how many there are in all."""


@dataclass(frozen=True, slots=True, eq=False)
class NormalImages:
    """Normal images and what they give.

    Attributes:
        features: (n, d) a level.
        digests: (n,) uint64, beginnings of the SHA-256 of the files.
        test: (m, d) features a level of normal test images (test/good of MVTec AD), None where there are none.
        skipped: unreadable files and why.
        warnings: for people: duplicates, leaks.
        copies: (n, d) features a level of augmented copies of the images, once a copy.
    """

    samples: tuple[Sample, ...]
    features: Features
    digests: NDArray[np.uint64]
    test: Features | None
    skipped: tuple[tuple[Path, str], ...]
    warnings: tuple[str, ...]
    copies: tuple[Features, ...] = ()


def look(folder: Path, *, skip_bad: bool = False, threads: int = 2) -> int:
    """How many normal training images a folder holds: to be refused before a backbone is fetched and tuned.

    Raises SourceError as `read_normal` does, for all that a file's header tells.
    """
    data = read_dataset(folder)
    seen = survey(replace(data, samples=data.normal), threads=threads)
    if not skip_bad:
        refuse(seen.unreadable)
    return sum(image.sample.fixed_split != "test" for image in seen.images)


def read_normal(
    folder: Path,
    extractor: FeatureExtractor,
    *,
    skip_bad: bool = False,
    threads: int = 2,
    augmentation: Augmentation | None = None,
    progress: Progress = lambda done, total: None,
) -> NormalImages:
    """Read the normal training images of a folder, and its normal test images where it has its own split.

    Args:
        augmentation: of the training images; each copy is a pass of the backbone of its own.

    Raises SourceError, naming the files, for unreadable images; with `skip_bad` they are left out and listed.
    """
    data = read_dataset(folder)
    train = [sample for sample in data.normal if sample.fixed_split != "test"]
    test = [sample for sample in data.normal if sample.fixed_split == "test"]
    total = len(train) + len(test)
    skipped: list[tuple[Path, str]] = []

    def note(sample: Sample, why: str) -> None:
        skipped.append((sample.path, why))

    def read(samples: Sequence[Sample], augmented: Augmentation | None) -> tuple[list[Sample], list[Features]]:
        number = 1 + (0 if augmented is None else augmented.copies)
        parts: list[list[Features]] = [[] for _ in range(number)]
        kept: list[Sample] = []
        size, batch = extractor.spec.input_size, extractor.batch_size
        for some, images in image_batches(samples, size, batch, threads=threads, unreadable=note):
            parts[0].append(extractor.extract(stack(images)))
            for copy in range(1, number):
                assert augmented is not None
                pairs = zip(images, some, strict=True)
                turned = [augmented.copy(image, _digest(sample).hex(), copy) for image, sample in pairs]
                parts[copy].append(extractor.extract(stack(turned)))
            kept += some
            progress(len(some), total)
        if not kept:
            return [], [[np.empty((0, width), np.float32) for width in extractor.spec.channels]] * number
        levels = range(len(extractor.spec.levels))
        return kept, [[np.concatenate([part[level] for part in own]) for level in levels] for own in parts]

    kept, (features, *copies) = read(train, augmentation)
    tested, (shown,) = read(test, None)
    if skipped and not skip_bad:
        listed = "; ".join(f"{path}: {why}" for path, why in skipped[:5])
        more = f"; and {len(skipped) - 5} more" if len(skipped) > 5 else ""
        raise SourceError(f"{count_of(len(skipped))} cannot be read ({listed}{more}): mend them, or give --skip-bad")
    if not kept:
        raise SourceError(f"{folder}: none of its normal images can be read")
    digests = _digests(kept)
    return NormalImages(
        tuple(kept),
        features,
        digests,
        shown if tested else None,
        tuple(skipped),
        _warnings(kept, digests, tested, data.defective),
        tuple(copies),
    )


def _digest(sample: Sample) -> bytes:
    return hashlib.sha256(sample.frame().data).digest()


def _digests(samples: Sequence[Sample]) -> NDArray[np.uint64]:
    parts = [_digest(sample)[:8] for sample in samples]
    return np.frombuffer(b"".join(parts), ">u8").astype(np.uint64)


def _warnings(
    train: Sequence[Sample], digests: NDArray[np.uint64], test: Sequence[Sample], defective: Sequence[Sample]
) -> tuple[str, ...]:
    told = []
    frames = (sample.frame() for sample in train)
    channels = Counter(read_header(frame.data, frame.encoding).channels for frame in frames)
    if len(channels) > 1:
        told.append(mixed_channels(channels))
    _, first, counts = np.unique(digests, return_index=True, return_counts=True)
    if (counts > 1).any():
        example = train[int(first[counts > 1][0])].path.name
        told.append(
            f"{int((counts - 1).sum())} training images are copies of others (such as {example}): copies on both sides "
            "of fit and calibration make the working point too strict"
        )
    for samples, what in ((test, "normal test images"), (defective, "defective images")):
        same = [sample for sample, digest in zip(samples, _digests(samples), strict=True) if digest in digests]
        if same:
            told.append(
                f"{len(same)} {what} are copies of training images (such as {same[0].path.name}): what is measured on "
                "them is too good"
            )
    return tuple(told)
