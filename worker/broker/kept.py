"""Kept frames: the bytes of every failed frame and of a share of the passed ones, with their verdicts, until they go.

The list and the verdicts lie in Redis, wherever the bytes are kept: verdicts leave their stream long before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gaussline.worker.broker.client import Redis, time_us, translated
from gaussline.worker.broker.kept_store import KeptStore, open_kept_store
from gaussline.worker.broker.script import Script
from gaussline.worker.contract.frame import FrameBatch, decode_batch, parse_frame_id
from gaussline.worker.contract.keys import Keys
from gaussline.worker.contract.verdict import Verdict
from gaussline.worker.errors import NotFound
from gaussline.worker.settings import Settings

PAGE = 200


@dataclass(frozen=True, slots=True)
class KeptFrame:
    """One kept frame: its identity, and when it was kept, in microseconds since the Unix epoch."""

    id: str
    kept_us: int


class KeptFrames:
    """The kept frames of one line.

    Args:
        store: where their bytes are, None where they are in Redis.
    """

    def __init__(self, client: Redis, line: str, store: KeptStore | None = None) -> None:
        self._client = client
        self._keys = Keys(line)
        self._store = store

    @classmethod
    def of(cls, settings: Settings, client: Redis) -> KeptFrames:
        """The kept frames of a line, in the store that its settings name. Raises SettingsError, BrokerError."""
        return cls(client, settings.line, open_kept_store(settings))

    def list(self, count: int = 100, *, skip: int = 0) -> list[KeptFrame]:
        """The newest kept frames but `skip`, newest first."""
        with translated("listing kept frames"):
            raw = self._client.zrevrange(self._keys.kept, skip, skip + count - 1, withscores=True)
        return [KeptFrame(name.decode(), int(score)) for name, score in raw]

    def get(self, frame_id: str) -> FrameBatch:
        """A frame batch of that one frame. Raises NotFound, saying that it was not kept or has expired."""
        parse_frame_id(frame_id)
        if self._store is not None:
            return self._store.get(frame_id)
        with translated("reading a kept frame"):
            data = self._client.get(self._keys.kept_blob(frame_id))
        if data is None:
            raise NotFound(
                f"frame {frame_id} is not kept: it passed and was not in the kept share, or it has expired (bounds: "
                "GAUSSLINE_KEPT_MAX_BYTES, GAUSSLINE_KEPT_MAX_AGE_S)"
            )
        return decode_batch(data)

    def age(self, max_age_s: float) -> int:
        """Let frames go that are over their age; how many went, at most PAGE. Another store ages by itself."""
        oldest_us = time_us(self._client) - int(max_age_s * 1e6)
        keys = [self._keys.kept, self._keys.totals]
        return int(Script("age_kept")(self._client, keys, [self._keys.prefix, oldest_us, PAGE]))

    def verdicts(self, frame_ids: Sequence[str]) -> Sequence[Verdict | None]:
        """The verdicts of kept frames, None for those that are kept no more. Raises ContractError for a broken one."""
        keys = [self._keys.kept_verdict(frame_id) for frame_id in frame_ids]
        with translated("reading verdicts of kept frames"):
            texts = self._client.mget(keys) if keys else []
        return [Verdict.from_json(text) if text else None for text in texts]
