"""Kept frames in a folder: one file a frame, bounded by bytes and age, for a line whose Redis is short of memory.

Every worker of the line must see the same folder. A file is written before its message is settled, under a name that is
the frame's identity: a second attempt writes the same bytes again, and a crash leaves at most a file nobody asks for.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from gaussline.worker.contract.frame import FrameBatch, decode_batch, parse_frame_id
from gaussline.worker.errors import BrokerError, NotFound

SWEEP_S = 10.0
"""How often the bounds are enforced: listing a folder for every frame would cost more than the frame."""


class KeptFolder:
    """A store of kept frames.

    Args:
        clock: seconds since the Unix epoch, as the file system counts them.
    """

    def __init__(
        self, folder: Path, *, max_bytes: int, max_age_s: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._clock = clock
        self._swept_s = float("-inf")
        self.dropped = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".probe.{os.getpid()}"
            probe.write_bytes(b"")  # a folder that is there may be read-only, and asking its mode tells only half
            probe.unlink()
        except OSError as error:
            raise BrokerError(
                f"kept frames cannot be written to {folder}: {error.strerror or error}; let this user write there, or "
                "name another place with GAUSSLINE_KEPT_STORE"
            ) from None

    def put(self, frame_id: str, data: bytes) -> None:
        """Write one frame, whole or not at all. Raises BrokerError where the folder cannot take it."""
        place = self._place(frame_id)
        spare = place.with_name(f".{place.name}.{os.getpid()}")
        try:
            spare.write_bytes(data)
            spare.replace(place)
            if self._clock() - self._swept_s >= SWEEP_S:
                self.sweep()
        except OSError as error:
            with contextlib.suppress(OSError):  # what broke the folder keeps this from it too
                spare.unlink()
            raise BrokerError(f"kept frame {place} cannot be written: {error.strerror or error}") from None

    def get(self, frame_id: str) -> FrameBatch:
        """A frame batch of that one frame. Raises NotFound, saying that it was not kept or has expired."""
        try:
            return decode_batch(self._place(frame_id).read_bytes())
        except FileNotFoundError:
            raise NotFound(f"frame {frame_id} is not kept in {self._folder}, or it has expired") from None
        except OSError as error:
            raise BrokerError(f"kept frame {self._place(frame_id)} cannot be read: {error.strerror or error}") from None

    def sweep(self) -> None:
        """Enforce the bounds, oldest first."""
        now = self._clock()
        self._swept_s = now
        files = []
        for path in self._folder.glob("*.msgpack"):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue  # another worker's sweep was here first
            files.append((stat.st_mtime, stat.st_size, path))
        held = sum(size for _, size, _ in files)
        for at, size, path in sorted(files):
            if held <= self._max_bytes and now - at <= self._max_age_s:
                return
            path.unlink(missing_ok=True)
            held -= size
            self.dropped += 1

    def _place(self, frame_id: str) -> Path:
        parse_frame_id(frame_id)  # it becomes a file name
        return self._folder / (frame_id.replace(":", "_") + ".msgpack")
