"""Feature events as they were recorded, oldest first."""

from __future__ import annotations

from collections.abc import Iterator

from gaussline.worker.broker.client import Redis, translated
from gaussline.worker.contract.feature_event import FeatureEvent
from gaussline.worker.contract.keys import Keys, check_name


def read_events(
    client: Redis, line: str, model: str, *, after: str = "0-0", count: int = 500
) -> Iterator[tuple[str, FeatureEvent]]:
    """Every recorded event of a model after an entry: (entry id, event). Raises ContractError for a broken one."""
    key = Keys(line).features(check_name("model", model))
    position = after
    while True:
        with translated("reading feature events"):
            entries = client.xrange(key, min=f"({position}", count=count)
        for entry_id, fields in entries:
            position = entry_id.decode()
            yield position, FeatureEvent.decode(fields[b"e"])
        if len(entries) < count:
            return
