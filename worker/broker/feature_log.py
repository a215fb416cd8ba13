"""The feature log of one model: feature events and orders, in the one order in which they count."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from gaussline.worker.broker.client import Redis, time_us, translated
from gaussline.worker.broker.lease import Lease
from gaussline.worker.broker.script import Script
from gaussline.worker.contract.feature_event import FeatureEvent
from gaussline.worker.contract.keys import Keys, check_name
from gaussline.worker.contract.order import Order

PAGE = 64
"""Entries of one call: at EfficientNet-B4 sizes 64 are 0.8 MB, and hold Redis for less than a millisecond."""
PAUSE_S = 0.001
AGED = 500


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as it stands in the log: `payload` is an event, or an order where `is_order`."""

    id: str
    payload: bytes
    is_order: bool


@dataclass(frozen=True, slots=True)
class Gap:
    """Entries that went before anybody had read them: `dropped` in all, the last one `until`."""

    until: str
    dropped: int


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
            if b"e" in fields:
                yield position, FeatureEvent.decode(fields[b"e"])
        if len(entries) < count:
            return


def write_order(client: Redis, line: str, model: str, order: Order) -> str:
    """Append an order of an operator to a model's log; its entry id."""
    keys = Keys(line)
    names = [keys.features(check_name("model", model)), keys.totals]
    answer: bytes = Script("write_order")(client, names, [model, order.encode()])
    return answer.decode()


def age_features(client: Redis, line: str, model: str, max_age_s: float) -> int:
    """Let a model's feature events go that are over their age; how many went, at most AGED of them a call."""
    keys = Keys(line)
    oldest_ms = int(time_us(client) / 1000 - 1000 * max_age_s)
    names = [keys.features(check_name("model", model)), keys.totals]
    return int(Script("age_features")(client, names, [model, oldest_ms, AGED]))


class FeatureLog:
    """The log as its learner reads it."""

    def __init__(self, client: Redis, line: str, model: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._client = client
        self._keys = Keys(line)
        self._model = check_name("model", model)
        self._key = self._keys.features(model)
        self._sleep = sleep

    def read(self, after: str, count: int) -> list[Entry]:
        """Up to `count` entries after an id, in pages that hold Redis for a moment each."""
        entries: list[Entry] = []
        with translated("reading the feature log"):
            while len(entries) < count:
                wanted = min(PAGE, count - len(entries))
                page = self._client.xrange(self._key, min=f"({after}", count=wanted)
                entries += [_entry(entry_id, fields) for entry_id, fields in page]
                if len(page) < wanted:
                    break
                after = entries[-1].id
        return entries

    def between(self, first: str, last: str) -> list[Entry]:
        """Entries from one id to another, both among them, as far as they are still there."""
        entries: list[Entry] = []
        start = first
        with translated("reading the feature log"):
            while True:
                page = self._client.xrange(self._key, min=start, max=last, count=PAGE)
                entries += [_entry(entry_id, fields) for entry_id, fields in page]
                if len(page) < PAGE:
                    return entries
                start = f"({entries[-1].id}"

    def sizes(self, until: str) -> list[tuple[str, int]]:
        """(Id, payload size) of every entry up to an id that is still there."""
        found: list[tuple[str, int]] = []
        start = "-"
        with translated("reading the feature log"):
            while True:
                page = self._client.xrange(self._key, min=start, max=until, count=PAGE)
                entries = [_entry(entry_id, fields) for entry_id, fields in page]
                found += [(entry.id, len(entry.payload)) for entry in entries]
                if len(page) < PAGE:
                    return found
                start = f"({entries[-1].id}"

    def length(self) -> int:
        """Entries in the log now."""
        with translated("reading the feature log"):
            return int(self._client.xlen(self._key))

    def gap(self) -> Gap:
        """What the byte bound has taken so far."""
        with translated("reading the feature log"):
            fields = [f"features_gap:{self._model}", f"features_dropped:{self._model}"]
            until, dropped = self._client.hmget(self._keys.totals, fields)
        return Gap("0-0" if until is None else until.decode(), 0 if dropped is None else int(dropped))

    def passed(self, lease: Lease, entries: Sequence[tuple[str, int]]) -> None:
        """Delete (id, size) entries that a checkpoint has passed. Raises Fenced."""
        for start in range(0, len(entries), PAGE):
            flat = [part for entry in entries[start : start + PAGE] for part in entry]
            lease.write("pass", self._model, *flat)
            self._sleep(PAUSE_S)

    def order(self, lease: Lease, before: str, after: str, orders: Sequence[Order]) -> str:
        """Write orders that were taken from feedback entries up to `after`, once; where the cursor stands then."""
        answer = lease.write("order", before, after, self._model, *[order.encode() for order in orders])
        return str(answer[1].decode()) if answer[0] == 2 else after

    def feedback_cursor(self) -> str:
        """Id of the last feedback entry that was taken into the log."""
        with translated("reading the learner"):
            cursor = self._client.hget(self._keys.learner(self._model), "feedback")
        return "0-0" if cursor is None else cursor.decode()


def later(one: str, other: str) -> bool:
    """Whether one entry id comes after the other."""
    return _parts(one) > _parts(other)


def _parts(entry_id: str) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number or 0)


def _entry(entry_id: bytes, fields: dict[bytes, bytes]) -> Entry:
    if b"o" in fields:
        return Entry(entry_id.decode(), fields[b"o"], True)
    return Entry(entry_id.decode(), fields.get(b"e", b""), False)
