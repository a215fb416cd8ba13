"""A look at every file of a data set before anything is computed: digest, size, channels, and what is wrong with it.

One read a file, no decoding. Files with the same bytes are found by their digest: a copy of a training image among the
test images makes an AUROC better than it is.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gaussline.worker.contract.limits import ImageLimits
from gaussline.worker.errors import ImageError, SourceError
from gaussline.worker.learning.dataset import Dataset, Sample
from gaussline.worker.vision.image_header import read_header

SHOWN = 10
"""Files that a message names before it says how many more there are."""


@dataclass(frozen=True, slots=True)
class Surveyed:
    """One file that looks like an image.

    Attributes:
        digest: SHA-256 (hex) of its bytes.
        size: (height, width) in pixels, upright.
        channels: as stored; a palette counts as one.
    """

    sample: Sample
    digest: str
    size: tuple[int, int]
    channels: int


@dataclass(frozen=True, slots=True)
class Unreadable:
    """One file that cannot be judged, and why."""

    path: Path
    why: str


@dataclass(frozen=True, slots=True)
class Survey:
    """All files of a data set."""

    images: tuple[Surveyed, ...]
    unreadable: tuple[Unreadable, ...]

    @property
    def copies(self) -> list[list[Sample]]:
        """Groups of samples with the same bytes."""
        groups: dict[str, list[Sample]] = {}
        for image in self.images:
            groups.setdefault(image.digest, []).append(image.sample)
        return [group for group in groups.values() if len(group) > 1]

    def warnings(self) -> list[str]:
        """What a person should know before trusting a number; one sentence each."""
        told = []
        groups = self.copies
        if groups:
            first = groups[0]
            told.append(
                f"{len(groups)} {'group' if len(groups) == 1 else 'groups'} of files have the same bytes (such as "
                f"{_short(first[0].path)} and {_short(first[1].path)}): copies on both sides of a "
                "split make an AUROC look better than it is"
            )
        both = [group for group in groups if len({sample.normal for sample in group}) == 2]
        if both:
            told.append(
                f"{len(both)} of these groups are labelled good and defective at once, such as "
                f"{_short(both[0][0].path)} and {_short(both[0][-1].path)}: one of the two labels is wrong"
            )
        channels = Counter(image.channels for image in self.images)
        if len(channels) > 1:
            told.append(mixed_channels(channels))
            for kind in (True, False):
                own = {image.channels for image in self.images if image.sample.normal is kind}
                other = {image.channels for image in self.images if image.sample.normal is not kind}
                if own and other and not own & other:
                    told.append(
                        "normal and defective images never have the same number of channels: an AUROC would measure "
                        "the file format, not the defect"
                    )
                    break
        return told


def mixed_channels(counts: Mapping[int, int]) -> str:
    """What a person should know where images have different numbers of channels (number -> images)."""
    listed = ", ".join(f"{count} with {number}" for number, count in sorted(counts.items()))
    return (
        f"images have different numbers of channels ({listed}): grey is repeated into red, green and blue and alpha is "
        "dropped, but cameras that differ so will not look alike to the backbone"
    )


def survey(data: Dataset, *, threads: int = 2, limits: ImageLimits | None = None) -> Survey:
    """Look at every file of a data set."""
    bounds = limits or ImageLimits()

    def look(sample: Sample) -> Surveyed | Unreadable:
        try:
            frame = sample.frame()
            if len(frame.data) > bounds.max_bytes:
                raise ImageError("too_large", f"{len(frame.data)} bytes, over the limit of {bounds.max_bytes}")
            header = read_header(frame.data, frame.encoding)
        except ImageError as error:
            return Unreadable(sample.path, error.detail)
        except SourceError as error:
            return Unreadable(sample.path, str(error))
        size = (header.height, header.width) if header.orientation < 5 else (header.width, header.height)
        return Surveyed(sample, hashlib.sha256(frame.data).hexdigest(), size, header.channels)

    with ThreadPoolExecutor(threads, "survey") as pool:
        found = list(pool.map(look, data.samples))
    return Survey(
        tuple(one for one in found if isinstance(one, Surveyed)),
        tuple(one for one in found if isinstance(one, Unreadable)),
    )


def refuse(unreadable: Sequence[Unreadable]) -> None:
    """Raise SourceError that lists them, where there are any."""
    if not unreadable:
        return
    shown = [f"  {one.path}: {one.why}" for one in unreadable[:SHOWN]]
    if len(unreadable) > SHOWN:
        shown.append(f"  … and {len(unreadable) - SHOWN} more")
    raise SourceError(
        "\n".join([f"{images(len(unreadable))} cannot be read (--skip-bad leaves them out and lists them):", *shown])
    )


def images(number: int) -> str:
    """So many images, for people."""
    return "1 image" if number == 1 else f"{number} images"


def _short(path: Path) -> str:
    return "/".join(path.parts[-3:])
