"""Kept frames: the bytes of every failed frame and of a share of the passed ones, until they expire."""

from __future__ import annotations

from dataclasses import dataclass

from gaussline.worker.broker.client import Redis, translated
from gaussline.worker.contract.frame import FrameBatch, decode_batch, parse_frame_id
from gaussline.worker.contract.keys import Keys
from gaussline.worker.errors import NotFound


@dataclass(frozen=True, slots=True)
class KeptFrame:
    """One kept frame: its identity, and when it was kept, in microseconds since the Unix epoch."""

    id: str
    kept_us: int


class KeptFrames:
    """The store of one line, in Redis."""

    def __init__(self, client: Redis, line: str) -> None:
        self._client = client
        self._keys = Keys(line)

    def list(self, count: int = 100) -> list[KeptFrame]:
        """The newest kept frames, newest first."""
        with translated("listing kept frames"):
            raw = self._client.zrevrange(self._keys.kept, 0, count - 1, withscores=True)
        return [KeptFrame(name.decode(), int(score)) for name, score in raw]

    def get(self, frame_id: str) -> FrameBatch:
        """A frame batch of that one frame. Raises NotFound, saying that it was not kept or has expired."""
        parse_frame_id(frame_id)
        with translated("reading a kept frame"):
            data = self._client.get(self._keys.kept_blob(frame_id))
        if data is None:
            raise NotFound(
                f"frame {frame_id} is not kept: it passed and was not in the kept share, or it has expired (bounds: "
                "GAUSSLINE_KEPT_MAX_BYTES, GAUSSLINE_KEPT_MAX_AGE_S)"
            )
        return decode_batch(data)
