"""A category: one folder of images with their features, from the cache or fresh, and what its files are like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gaussline.worker.contract.spec import BackboneSpec
from gaussline.worker.errors import SourceError
from gaussline.worker.learning.augmentation import Augmentation
from gaussline.worker.learning.dataset import Dataset, Sample, read_dataset
from gaussline.worker.learning.feature_cache import FeatureCache, Levels
from gaussline.worker.learning.features import Features, Progress, image_batches
from gaussline.worker.learning.pipeline import BackboneOptions
from gaussline.worker.learning.survey import Survey, Unreadable, images, refuse, survey
from gaussline.worker.vision.features import FeatureExtractor
from gaussline.worker.vision.preprocess import stack
from gaussline.worker.vision.runtime import resolve_device


class Extraction:
    """A backbone whose spec is known at once, and which is prepared only where something must be computed.

    Args:
        started: is told once, when the backbone had to be prepared.
    """

    def __init__(self, options: BackboneOptions, started: Callable[[FeatureExtractor], None] = lambda _: None) -> None:
        self._options = options
        self._backbone = options.load()
        self._extractor: FeatureExtractor | None = None
        self._started = started
        self.spec: BackboneSpec = self._backbone.spec
        self.mode = resolve_device(options.device).split(":")[0]

    @property
    def extractor(self) -> FeatureExtractor:
        """The prepared backbone."""
        if self._extractor is None:
            self._extractor = self._options.start(self._backbone)
            self._started(self._extractor)
        return self._extractor

    @property
    def runtime(self) -> str | None:
        """How it runs, or None where all features came from the cache."""
        return None if self._extractor is None else str(self._extractor.runtime)


@dataclass(frozen=True, slots=True, eq=False)
class Category:
    """One folder, read.

    Attributes:
        name: of the folder.
        data: what could be read of it.
        features: (n, d) float32 a level, in the order of `data.samples`.
        digests: of the samples' bytes, in the same order.
        sizes: (height, width) of each image as stored.
        skipped: files that were left out.
        warnings: sentences for a person.
        copies: features of augmented copies of the images, once a copy, in the same order.
    """

    name: str
    data: Dataset
    features: Features
    digests: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    skipped: tuple[Unreadable, ...] = ()
    warnings: tuple[str, ...] = field(default=())
    copies: tuple[Features, ...] = ()

    def rows(self, wanted: Callable[[Sample], bool]) -> NDArray[np.intp]:
        """Rows of the samples that are wanted."""
        return np.flatnonzero([wanted(sample) for sample in self.data.samples])


def find_categories(folders: list[Path]) -> list[Path]:
    """The folders themselves, and in the place of one that only holds data sets, those. Raises SourceError."""
    found = []
    for folder in folders:
        if not folder.is_dir():
            raise SourceError(f"{folder} is no folder")
        own = (folder / "good").is_dir() or (folder / "train" / "good").is_dir()
        inner = [] if own else [p for p in sorted(folder.iterdir()) if (p / "train" / "good").is_dir()]
        inner = inner or ([] if own else [p for p in sorted(folder.iterdir()) if (p / "good").is_dir()])
        found += inner or [folder]
    names = [folder.resolve().name for folder in found]
    for name in names:
        if names.count(name) > 1:
            raise SourceError(f"two folders are named {name}: categories go by the names of their folders")
    return found


def read_category(
    folder: Path,
    extraction: Extraction,
    cache: FeatureCache | None,
    *,
    skip_bad: bool = False,
    threads: int = 2,
    augmentation: Augmentation | None = None,
    planned: Callable[[int], None] = lambda images: None,
    progress: Progress = lambda done: None,
) -> Category:
    """Look at a folder's files and get the features of all its images.

    Every batch is kept in the cache as it is done: what was interrupted goes on where it stopped.

    Args:
        skip_bad: leave out images that cannot be read; else they are refused, all of them named.
        augmentation: copies of all images; which of them are fitted on is a plan's to say.
        planned: told how many images the folder has.

    Raises:
        SourceError: neither layout, one class only, or unreadable images.
    """
    listed = read_dataset(folder, need_defects=True)
    seen = survey(listed, threads=threads)
    if not skip_bad:
        refuse(seen.unreadable)
    planned(len(seen.images))
    # The image as it is, then its copies; each is kept for itself.
    modes = [extraction.mode]
    if augmentation is not None:
        modes += [f"{extraction.mode}-{augmentation.key(number)}" for number in range(1, 1 + augmentation.copies)]
    rows: dict[Path, list[Levels]] = {}
    bad = list(seen.unreadable)
    digests = {image.sample.path: image.digest for image in seen.images}
    fresh: list[Sample] = []
    for image in seen.images:
        levels = [None if cache is None else cache.get(image.digest, extraction.spec, mode) for mode in modes]
        known = [level for level in levels if level is not None]
        if len(known) < len(modes):
            fresh.append(image.sample)
        else:
            rows[image.sample.path] = known
            progress(1)
    if fresh:
        extractor = extraction.extractor

        def note(sample: Sample, why: str) -> None:
            bad.append(Unreadable(sample.path, why))
            progress(1)

        size, batch = extractor.spec.input_size, extractor.batch_size
        for read, images in image_batches(fresh, size, batch, threads=threads, unreadable=note):
            for number, mode in enumerate(modes):
                shown = images
                if number and augmentation is not None:
                    pairs = zip(images, read, strict=True)
                    shown = [augmentation.copy(image, digests[sample.path], number) for image, sample in pairs]
                features = extractor.extract(stack(shown))
                for index, sample in enumerate(read):
                    own = [level[index] for level in features]
                    rows.setdefault(sample.path, []).append(own)
                    if cache is not None:
                        cache.put(digests[sample.path], extraction.spec, mode, own)
            progress(len(read))
        if not skip_bad:
            refuse(bad)
    return _category(listed, seen, rows, tuple(bad))


def _category(listed: Dataset, seen: Survey, rows: dict[Path, list[Levels]], bad: tuple[Unreadable, ...]) -> Category:
    kept = [image for image in seen.images if image.sample.path in rows]
    data = Dataset(listed.root, tuple(image.sample for image in kept))
    if not data.normal or not data.defective:
        kind = "normal" if not data.normal else "defective"
        raise SourceError(f"{listed.root}: no {kind} image can be read, so nothing can be evaluated")
    warnings = Survey(tuple(kept), ()).warnings()
    if bad:
        named = ", ".join(one.path.name for one in bad[:5]) + (", …" if len(bad) > 5 else "")
        told = "was" if len(bad) == 1 else "were"
        warnings.append(f"{images(len(bad))} cannot be read and {told} left out: {named}")
    levels, *copies = (
        [np.stack(level) for level in zip(*each, strict=True)]
        for each in zip(*(rows[image.sample.path] for image in kept), strict=True)
    )
    return Category(
        listed.root.resolve().name,
        data,
        levels,
        tuple(image.digest for image in kept),
        tuple(image.size for image in kept),
        bad,
        tuple(warnings),
        tuple(copies),
    )
