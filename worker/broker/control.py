"""Control events: a hint that something changed (a camera appeared, a pointer moved), so that truth is read again."""

from __future__ import annotations

from gaussline.worker.broker.client import Redis, translated
from gaussline.worker.contract.keys import Keys


class Control:
    """Waits for control events. They may be lost or trimmed: whoever waits reads the truth again each second anyway."""

    def __init__(self, client: Redis, line: str) -> None:
        self._client = client
        self._key = Keys(line).events
        self._last = "$"

    def wait(self, timeout_s: float) -> set[str]:
        """Sleep until an event or for `timeout_s`; the kinds of what happened: `camera`, `pointer`, `version`."""
        with translated("waiting for control events"):
            answer = self._client.xread({self._key: self._last}, count=1000, block=max(1, int(timeout_s * 1000)))
        kinds = set()
        for _, entries in answer or []:
            for entry_id, fields in entries:
                self._last = entry_id
                kinds.add(fields.get(b"kind", b"").decode())
        return kinds
