"""Features that were computed before, on disk: found by what the image and the backbone *are*, never by their names.

One file an image: a safetensors body (numbers behind a checked header, no code) and the SHA-256 of it. A file is
written beside its place and moved there, so a crash leaves the old or the new one; whatever is torn or damaged all the
same is found by its checksum, deleted and computed again. The folder is bounded: the files that were not asked for the
longest go first. Several processes may share it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from gaussline.worker.contract.spec import BackboneSpec

Levels = list[NDArray[np.float32]]
DIGEST_BYTES = 32
STALE_S = 3600.0
"""Age from which a file that never reached its place belongs to a process that died."""


class FeatureCache:
    """A folder of features.

    A cache may be slow, full or read-only: it never makes an evaluation fail. `trouble` says what went wrong first.

    Args:
        root: the folder; made on the first write.
        max_bytes: bound that `trim` keeps.

    Attributes:
        hits, misses, damaged: counts of `get`.
    """

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.root = root
        self.max_bytes = max_bytes
        self.hits = self.misses = self.damaged = 0
        self.trouble: str | None = None

    def get(self, image: str, spec: BackboneSpec, mode: str) -> Levels | None:
        """(d,) float32 features a level of an image (its digest) under a backbone, or None.

        Args:
            mode: what else the features depend on, such as `cpu`; letters, digits and dashes.
        """
        path = self._path(image, spec, mode)
        try:
            data = path.read_bytes()
        except OSError:
            self.misses += 1
            return None
        levels = _unpack(data, spec)
        if levels is None:
            self.damaged += 1
            self.misses += 1
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        self.hits += 1
        with contextlib.suppress(OSError):  # its time of use; a read-only cache has none
            os.utime(path)
        return levels

    def put(self, image: str, spec: BackboneSpec, mode: str, levels: Sequence[NDArray[np.float32]]) -> None:
        """Keep the features of one image."""
        path = self._path(image, spec, mode)
        body = save({str(index): np.ascontiguousarray(level, np.float32) for index, level in enumerate(levels)})
        spare = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            spare.write_bytes(body + hashlib.sha256(body).digest())
            spare.replace(path)
        except OSError as error:
            self.trouble = self.trouble or f"{self.root}: {error.strerror or error}"
            with contextlib.suppress(OSError):
                spare.unlink()

    def trim(self) -> int:
        """Delete the least recently used files down to nine tenths of the bound, if it is passed; how many."""
        found: list[tuple[float, int, Path]] = []
        now = time.time()
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = Path(folder, name)
                with contextlib.suppress(OSError):
                    status = path.stat()
                    if name.startswith(".") and now - status.st_mtime > STALE_S:
                        path.unlink()
                    else:
                        found.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in found)
        if total <= self.max_bytes:
            return 0
        deleted = 0
        for _, size, path in sorted(found):
            if total <= 0.9 * self.max_bytes:
                break
            with contextlib.suppress(OSError):
                path.unlink()
                total -= size
                deleted += 1
        return deleted

    def _path(self, image: str, spec: BackboneSpec, mode: str) -> Path:
        return self.root / f"{spec.digest[:32]}-{mode}" / image[:2] / f"{image}.features"


def _unpack(data: bytes, spec: BackboneSpec) -> Levels | None:
    body, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
    if len(data) <= DIGEST_BYTES or hashlib.sha256(body).digest() != digest:
        return None
    try:
        arrays = load(body)
        levels = [arrays[str(index)] for index in range(len(spec.levels))]
    except (SafetensorError, KeyError):
        return None
    fits = all(
        level.shape == (width,) and level.dtype == np.float32
        for level, width in zip(levels, spec.channels, strict=True)
    )
    return levels if fits else None
