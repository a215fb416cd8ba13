"""Where kept frames go when they do not go to Redis: one interface, and the store that the settings name."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from gaussline.worker.broker.client import redact
from gaussline.worker.broker.kept_folder import KeptFolder
from gaussline.worker.broker.kept_s3 import KeptS3
from gaussline.worker.contract.frame import FrameBatch
from gaussline.worker.errors import SettingsError
from gaussline.worker.settings import Settings


class KeptStore(Protocol):
    """A store of kept frames, bounded by bytes and age. Safe to call from one thread at a time."""

    def put(self, frame_id: str, data: bytes) -> None:
        """Write one frame, whole or not at all; again where it is there already. Raises BrokerError."""
        ...

    def get(self, frame_id: str) -> FrameBatch:
        """A frame batch of that one frame. Raises NotFound where it was not kept or has expired, BrokerError."""
        ...


def open_kept_store(settings: Settings) -> KeptStore | None:
    """The store of the settings, None where it is Redis itself. Raises SettingsError, BrokerError."""
    where = settings.kept_store
    if where == "redis":
        return None
    most, oldest_s = settings.kept_max_bytes, settings.kept_max_age_s
    if where.startswith("file:///"):
        return KeptFolder(Path(where.removeprefix("file://")), max_bytes=most, max_age_s=oldest_s)
    if where.startswith("s3://"):
        return KeptS3(where, max_bytes=most, max_age_s=oldest_s)
    raise SettingsError(
        f"kept_store = {redact(where)!r} is none of redis, file:///a/folder and s3://bucket/prefix?endpoint=https://host:port"
    )
