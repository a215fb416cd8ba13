"""A folder of what was computed before: each file behind its own checksum, the whole bounded.

A file is written beside its place and moved there, so a crash leaves the old or the new one; whatever is torn or
damaged all the same is found by its checksum, deleted and computed again. The files that were not asked for the longest
go first. Several processes may share a folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Kept = TypeVar("Kept")
DIGEST_BYTES = 32
STALE_S = 3600.0
"""Age from which a file that never reached its place belongs to a process that died."""


class ContentStore:
    """A folder of bodies with the SHA-256 of each behind it.

    A store may be slow, full or read-only: it never makes an evaluation fail. `trouble` says what went wrong first.

    Args:
        root: the folder; made on the first write.
        max_bytes: bound that `trim` keeps.

    Attributes:
        damaged: files that were found torn, and deleted.
    """

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.root = root
        self.max_bytes = max_bytes
        self.damaged = 0
        self.trouble: str | None = None

    def get(self, place: str, read: Callable[[bytes], Kept | None]) -> Kept | None:
        """What lies at a place, as `read` makes it of its bytes; None where nothing does, or `read` finds it wrong."""
        path = self.root / place
        try:
            data = path.read_bytes()
        except OSError:
            return None
        body, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
        sound = len(data) > DIGEST_BYTES and hashlib.sha256(body).digest() == digest
        found = read(body) if sound else None
        with contextlib.suppress(OSError):
            if found is None:
                self.damaged += 1
                path.unlink()
            else:
                os.utime(path)  # its time of use; a read-only folder has none
        return found

    def put(self, place: str, body: bytes) -> None:
        """Keep bytes at a place."""
        path = self.root / place
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
