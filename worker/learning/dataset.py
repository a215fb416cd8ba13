"""Folders of images with known labels: `good/` and `bad/<defect>/`, or the layout of MVTec AD."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gaussline.worker.contract.frame import Frame
from gaussline.worker.errors import SourceError

ENCODINGS = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".bmp": "bmp",
    ".webp": "webp",
    ".tif": "tiff",
    ".tiff": "tiff",
}
GOOD = "good"


@dataclass(frozen=True, slots=True)
class Sample:
    """One image file.

    Attributes:
        defect: `good`, or the name of the defect.
        fixed_split: `train` or `test` where the folder itself says so (MVTec AD), else None.
        mask: file of the defect's mask, where there is one.
    """

    path: Path
    defect: str
    fixed_split: str | None = None
    mask: Path | None = None

    @property
    def normal(self) -> bool:
        """Shows a good part."""
        return self.defect == GOOD

    def frame(self) -> Frame:
        """The file as a frame. Raises SourceError where it cannot be read."""
        try:
            return Frame(self.path.read_bytes(), ENCODINGS[self.path.suffix.lower()], captured_us=1)
        except OSError as error:
            raise SourceError(f"image {self.path} cannot be read: {error.strerror or error}") from None


@dataclass(frozen=True, slots=True)
class Dataset:
    """All samples of one folder, in the order of their paths."""

    root: Path
    samples: tuple[Sample, ...]

    @property
    def normal(self) -> tuple[Sample, ...]:
        """Samples of good parts."""
        return tuple(sample for sample in self.samples if sample.normal)

    @property
    def defective(self) -> tuple[Sample, ...]:
        """Samples with a defect."""
        return tuple(sample for sample in self.samples if not sample.normal)

    @property
    def defects(self) -> tuple[str, ...]:
        """Names of the defects."""
        return tuple(sorted({sample.defect for sample in self.defective}))

    def split(self, train_share: float, seed: int) -> Split:
        """Training and held-out normal samples: the folder's own split where it has one, else shuffled by the seed."""
        normal = self.normal
        if any(sample.fixed_split for sample in normal):
            train = [sample for sample in normal if sample.fixed_split == "train"]
            return Split(tuple(train), tuple(sample for sample in normal if sample.fixed_split != "train"))
        order = np.random.default_rng(seed).permutation(len(normal))
        count = round(train_share * len(normal))
        return Split(tuple(normal[i] for i in order[:count]), tuple(normal[i] for i in order[count:]))

    def duplicates(self) -> list[list[Path]]:
        """Groups of files with the same bytes: between training and test they make an AUROC look better than it is."""
        groups: dict[str, list[Path]] = {}
        for sample in self.samples:
            groups.setdefault(hashlib.sha256(sample.frame().data).hexdigest(), []).append(sample.path)
        return [paths for paths in groups.values() if len(paths) > 1]


@dataclass(frozen=True, slots=True)
class Split:
    """Normal samples to fit on, and normal samples that the fit must not see."""

    train: tuple[Sample, ...]
    held_out: tuple[Sample, ...] = field(default=())


def read_dataset(root: Path, *, need_defects: bool = False) -> Dataset:
    """Read a folder's listing. Raises SourceError where it is missing, empty or of neither layout."""
    if not root.is_dir():
        raise SourceError(f"{root} is no folder")
    if (root / "train" / GOOD).is_dir():
        samples = _mvtec(root)
    elif (root / GOOD).is_dir():
        samples = [Sample(path, GOOD) for path in _images(root / GOOD)]
        for folder in _folders(root / "bad"):
            masks = root / "ground_truth" / folder.name
            samples += [Sample(path, folder.name, mask=_mask(masks, path)) for path in _images(folder)]
        samples += [Sample(path, "bad") for path in _images(root / "bad", deep=False)]
    else:
        raise SourceError(
            f"{root} has neither good/ (with bad/<defect>/) nor train/good (with test/<defect>, the layout of MVTec AD)"
        )
    dataset = Dataset(root, tuple(samples))
    if not dataset.normal:
        raise SourceError(f"{root} holds no normal images ({', '.join(sorted(ENCODINGS))})")
    if need_defects and not dataset.defective:
        raise SourceError(f"{root} holds no defective images: without them nothing can be evaluated")
    return dataset


def _mvtec(root: Path) -> list[Sample]:
    samples = [Sample(path, GOOD, "train") for path in _images(root / "train" / GOOD)]
    for folder in _folders(root / "test"):
        masks = root / "ground_truth" / folder.name
        samples += [Sample(path, folder.name, "test", _mask(masks, path)) for path in _images(folder)]
    return samples


def _mask(folder: Path, image: Path) -> Path | None:
    for name in (f"{image.stem}_mask.png", image.name):
        if (folder / name).is_file():
            return folder / name
    return None


def _folders(root: Path) -> Sequence[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []


def _images(root: Path, *, deep: bool = True) -> Sequence[Path]:
    if not root.is_dir():
        return []
    found = root.rglob("*") if deep else root.glob("*")
    return sorted(path for path in found if path.suffix.lower() in ENCODINGS and path.is_file())
