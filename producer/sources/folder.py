"""A folder of image files, once or over and over, in the order of their paths or shuffled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Final

from gaussline.producer.image import ENCODING_OF, HEADER_BYTES, SUFFIXES, read_image, sniff
from gaussline.producer.shot import Shot
from gaussline.worker.contract.limits import ImageLimits
from gaussline.worker.errors import SourceError

GOOD: Final = "good"
MASKS: Final = "ground_truth"
"""Folder of MVTec AD's defect masks: pictures, but of no part."""
_SPLITS: Final = frozenset({"train", "test", "validation"})


class Folder:
    """The images of a folder.

    Files are listed once, at the start, and read one at a time. Labels come from the path: `good/`, `bad/<defect>/`
    or MVTec AD's `train/good` and `test/<defect>`; elsewhere they are None. Files keep their bytes.

    Args:
        root: a folder, or one image file.
        recursive: look into folders inside, hidden ones and `ground_truth` apart.
        loop: begin again at the end, for ever.
        shuffle: a new order for each round, drawn from `seed` alone.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        recursive: bool = True,
        loop: bool = False,
        shuffle: bool = False,
        seed: int = 0,
        limits: ImageLimits | None = None,
    ) -> None:
        self.root = Path(root)
        self.loop = loop
        self._shuffle = shuffle
        self._seed = seed
        self._limits = limits or ImageLimits()
        self.paths = self._list(recursive)

    def __len__(self) -> int:
        """Images of one round."""
        return len(self.paths)

    def __iter__(self) -> Iterator[Shot]:
        """One shot a file. Raises SourceError, LimitExceeded where a file cannot be read."""
        turn = 0
        while True:
            order = list(self.paths)
            if self._shuffle:
                Random(f"{self._seed}:{turn}").shuffle(order)
            for path in order:
                data = read_image(path, self._limits)
                # A broken file is sent as what its name says: the worker tells what is wrong, and the others follow.
                encoding = sniff(data[:HEADER_BYTES]) or ENCODING_OF.get(path.suffix.lower())
                if encoding is None:
                    raise SourceError(f"{path} is no image: {', '.join(sorted(SUFFIXES))} are")
                yield Shot(data, encoding=encoding, label=label_of(path, self.root), name=self._name(path))
            turn += 1
            if not self.loop:
                return

    def _name(self, path: Path) -> str:
        return path.name if path == self.root else path.relative_to(self.root).as_posix()

    def _list(self, recursive: bool) -> list[Path]:
        if self.root.is_file():
            return [self.root]
        if not self.root.is_dir():
            raise SourceError(f"{self.root} is no folder and no image file: there is nothing of this name")
        try:
            found = self.root.rglob("*") if recursive else self.root.glob("*")
            paths = sorted(path for path in found if self._wanted(path))
        except OSError as error:
            raise SourceError(f"folder {self.root} cannot be read: {error.strerror or error}") from None
        if not paths:
            where = "nor do the folders inside it" if recursive else "and the folders inside are not looked into"
            raise SourceError(f"folder {self.root} holds no images, {where} ({', '.join(sorted(SUFFIXES))})")
        return paths

    def _wanted(self, path: Path) -> bool:
        inner = path.relative_to(self.root).parts
        hidden = any(part.startswith(".") for part in inner)
        return path.suffix.lower() in SUFFIXES and MASKS not in inner[:-1] and not hidden and path.is_file()


def label_of(path: Path, root: Path) -> str | None:
    """`good`, the name of a defect, or None where the path does not tell.

    The folders between `root` and the file decide. Where they do not tell, `root` itself may lie in a data set:
    `…/bottle/test/scratch` is known for what it is by its neighbour `…/bottle/test/good`.
    """
    inner = path.parent.parts[len(root.parts) :] if path != root else ()
    return _told(inner) or _told_by_neighbours(root.resolve() if path != root else root.resolve().parent, inner)


def _told(folders: tuple[str, ...]) -> str | None:
    for index, folder in enumerate(folders):
        following = folders[index + 1] if index + 1 < len(folders) else None
        if folder == GOOD:
            return GOOD
        if folder == "bad":
            return following or "bad"
        if folder in _SPLITS and following is not None:
            return following
    return None


def _told_by_neighbours(root: Path, inner: tuple[str, ...]) -> str | None:
    following = inner[0] if inner else None
    if root.name == GOOD:
        return GOOD
    if root.name == "bad" and (root.parent / GOOD).is_dir():
        return following or "bad"
    if root.name in _SPLITS and (root / GOOD).is_dir() and following is not None:
        return following
    above = root.parent
    split = above.name in _SPLITS and (above / GOOD).is_dir()
    return root.name if split or (above.name == "bad" and (above.parent / GOOD).is_dir()) else None
