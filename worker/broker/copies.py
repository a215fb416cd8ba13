"""Copies of frames that a set of workers is shown, and what it says of them.

Copies are lossy on purpose: admission sheds what is over the set's bound in bytes, a worker that dies loses what it had
in hand, and nobody is owed a result. Nothing here touches the frames themselves, their verdicts or the ledger.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gaussline.worker.broker.client import Redis, translated
from gaussline.worker.broker.script import Script
from gaussline.worker.contract.keys import Keys, check_name

RESULT_BYTES, RESULT_AGE_S = 16 * 2**20, 7 * 86_400.0
"""Bounds of what a set said, where none are stated: about 20,000 results, a week."""
PAGE = 500
UNFETCHED_S = 60
"""Life of a copy that was taken by a worker that never fetched it."""


@dataclass(frozen=True, slots=True, eq=False)
class Copy:
    """One copied message, as admission took it."""

    camera: str
    entry_id: str
    epoch: int
    first_sequence: int
    frames: int
    admitted_us: int
    payload: bytes


class Copies:
    """The copies for one set."""

    def __init__(self, client: Redis, line: str, worker_set: str) -> None:
        keys = Keys(line)
        self._client = client
        self._names = [keys.copies(check_name("set", worker_set)), keys.set_state(worker_set)]
        self._payloads = keys.copy_payload(worker_set, "")
        self._take = Script("take_copies")

    def take(self, *, max_frames: int, max_bytes: int) -> list[Copy]:
        """Copies that wait, oldest first, up to the bounds. They are gone from Redis."""
        args = [self._payloads, max_frames, max_bytes, UNFETCHED_S]
        items = self._take(self._client, self._names, args)
        if not items:
            return []
        with translated("fetching copies"):
            pipeline = self._client.pipeline(transaction=False)
            for entry_id, _ in items:
                pipeline.getdel(self._payloads + entry_id.decode())
            payloads = pipeline.execute()
        found = (_copy(entry, fields, data) for (entry, fields), data in zip(items, payloads, strict=True))
        return [copy for copy in found if copy is not None]


class SetResults:
    """What one set says of the copies it was shown: fields `id`, `camera`, `decision`, `json`, as of verdicts.

    Args:
        max_bytes, max_age_s: bounds of what stays; the oldest go first.
    """

    def __init__(
        self,
        client: Redis,
        line: str,
        worker_set: str,
        *,
        max_bytes: int = RESULT_BYTES,
        max_age_s: float = RESULT_AGE_S,
    ) -> None:
        keys = Keys(line)
        self._client = client
        self._names = [keys.set_results(check_name("set", worker_set)), keys.set_state(worker_set)]
        self._bounds = [max_bytes, int(1000 * max_age_s)]
        self._write = Script("set_results")

    def publish(self, results: Sequence[tuple[str, str, str, str]]) -> None:
        """Write (frame id, camera, decision, JSON) in one call. Raises BrokerError."""
        self._write(self._client, self._names, [*self._bounds, *(part for result in results for part in result)])

    def age(self) -> int:
        """Let the oldest go that are over a bound, though nothing new comes; how many went, 1,000 a call at most."""
        return int(self._write(self._client, self._names, self._bounds))

    def read(self, after: str = "0-0") -> Iterator[tuple[str, bytes, bytes]]:
        """(Entry id, frame id, JSON) of every result after an entry."""
        while True:
            with translated("reading what a set says"):
                page = self._client.xrange(self._names[0], min=f"({after}", count=PAGE)
            for entry_id, fields in page:
                after = entry_id.decode()
                yield after, fields[b"id"], fields[b"json"]
            if len(page) < PAGE:
                return


def _copy(entry_id: bytes, fields: list[bytes], payload: bytes | None) -> Copy | None:
    """None where an entry was not written by admission, or its payload is gone: a copy is nobody's loss."""
    if payload is None:
        return None
    pairs: dict[bytes, Any] = dict(zip(fields[::2], fields[1::2], strict=True))
    try:
        return Copy(
            pairs[b"camera"].decode(),
            entry_id.decode(),
            int(pairs[b"epoch"]),
            int(pairs[b"seq"]),
            int(pairs[b"n"]),
            int(pairs[b"at"]),
            payload,
        )
    except (KeyError, ValueError):
        return None
