"""Intake: how a worker comes by its messages.

Fairness. `take` is start-time fair queueing (Goyal, Vin, Cheng 1996) over whole messages, in frames: every camera with
unread messages has a start tag, the least one is served, and is served again only after its tag has moved by
frames / weight. Among cameras whose tag is within one quantum of the least, the one with the earliest deadline goes
first. So for two cameras f and g with messages waiting all the time, and messages of at most n frames,

    | frames_f / weight_f - frames_g / weight_g |  <=  n / weight_f + n / weight_g + 2 * quantum

over any stretch of service, however many messages either of them has waiting.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from gaussline.worker.broker.client import Redis, translated
from gaussline.worker.broker.copies import Copies, Copy
from gaussline.worker.broker.script import Script
from gaussline.worker.contract.keys import MAIN, Keys, check_name
from gaussline.worker.errors import BrokerError

QUANTUM_FRAMES = 8
"""How far an earlier deadline may jump the fair order."""
CLAIM_CAMERAS = 64
"""Cameras looked at by one claim call; the next goes on from there."""
AUDIT_FIELDS = 512
"""Messages looked at by one audit; the next goes on from there. A bound on how long it holds Redis (about 2 ms)."""
FETCH_BYTES = 2**20
"""Most bytes of one fetch of several payloads: beyond it the reply outgrows caches, and others wait for Redis."""
DOUBTS = 10
"""Calls of `recall` that look, after an answer was lost: Redis may run a call long after it was given up here."""
FORGET_AFTER_MS = 3_600_000
"""Idle time after which a dead worker's name is forgotten."""


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """One stream message in a worker's hands.

    Attributes:
        payload: the msgpack frame batch; None where the entry was deleted behind our back.
        deliveries: how often it was delivered, this time included.
        crashes: how often a worker died over it; a slow worker or a clean shutdown does not count.
        admitted: it came through admission. One that did not has no identity, and gets no verdict.
        copy: another set settles it. What is said of it is no verdict.
    """

    camera: str
    entry_id: str
    epoch: int
    first_sequence: int
    frame_count: int
    size_bytes: int
    admitted_us: int
    deadline_us: int
    payload: bytes | None
    deliveries: int = 1
    crashes: int = 0
    admitted: bool = True
    copy: bool = False


class Intake:
    """Takes and claims messages for one worker.

    Args:
        worker: its name, or that of its life (`heartbeat.life_of`): its consumer name in every group.
        claim_after_s: idle time after which a dead worker's messages are claimed.
        slow_claim_after_s: idle time after which a living worker's messages are claimed.
        worker_set: the set of workers that it belongs to: it takes what that set settles, and then copies for it.
    """

    def __init__(
        self,
        client: Redis,
        line: str,
        worker: str,
        *,
        claim_after_s: float = 5.0,
        slow_claim_after_s: float = 60.0,
        worker_set: str = MAIN,
    ) -> None:
        self._client = client
        self._keys = keys = Keys(line)
        self._set = check_name("set", worker_set)
        self._order = (keys.set_ready(worker_set), keys.set_due(worker_set), keys.set_bell(worker_set))
        self._copies = None if worker_set == MAIN else Copies(client, line, worker_set)
        self._worker = check_name("worker", worker)
        self._idle_ms = (int(claim_after_s * 1000), int(slow_claim_after_s * 1000))
        self._cursor = ""
        self.dead_due_s: float | None = None
        """After `claim`: how soon the next message that a dead worker holds may be claimed, None where none does."""
        self._audited = ("", "0")
        self._unfetched: list[Any] = []
        self._doubts = 0
        self._take = Script("take")
        self._claim = Script("claim")
        self._audit = Script("audit")
        self._release = Script("release")
        self._leave = Script("leave")
        self._reconcile = Script("reconcile")

    def take(self, *, max_frames: int, max_bytes: int) -> list[Message]:
        """Unread messages, at once, in fair order: at least one where there is any, then up to the bounds."""
        if self._unfetched:
            return self._messages([])
        ready, due, _ = self._order
        time_field = "vtime" if self._set == MAIN else f"vtime:{self._set}"
        args = [self._keys.prefix, self._worker, max_frames, max_bytes, QUANTUM_FRAMES, self._set, time_field]
        messages = self._messages(self._ours(self._take, [ready, due, self._keys.totals], args))
        if messages or self._copies is None:
            return messages
        return [_copied(copy) for copy in self._copies.take(max_frames=max_frames, max_bytes=max_bytes)]

    def wait(self, timeout_s: float) -> bool:
        """Sleep until the doorbell rings, or for `timeout_s`; True where it rang."""
        with translated("waiting for frames"):
            try:
                return self._client.blpop([self._order[2]], timeout=timeout_s) is not None
            except redis.exceptions.ResponseError as error:
                if "UNBLOCKED" in str(error):  # a failover; what is true now is asked next
                    return False
                raise

    def claim(self, *, max_frames: int, max_bytes: int) -> list[Message]:
        """Messages whose worker is dead or too slow, up to the bounds; goes on where the last call stopped.

        Then, within what is left of the bounds, messages that nobody would read or claim any more: deleted behind our
        back (no payload), or acknowledged by somebody who did not settle them.
        """
        args = [
            self._keys.prefix,
            self._worker,
            *self._idle_ms,
            max_frames,
            max_bytes,
            self._cursor,
            CLAIM_CAMERAS,
            self._set,
        ]
        after, items, due_ms = self._ours(self._claim, [self._keys.cameras], args)
        self.dead_due_s = None if due_ms < 0 else due_ms / 1000.0
        self._cursor = after.decode()
        messages = self._messages(items)
        max_frames -= sum(message.frame_count for message in messages)
        max_bytes -= sum(message.size_bytes for message in messages)
        if max_frames > 0 and max_bytes > 0:
            try:
                messages += self._find(max_frames, max_bytes)
            except BrokerError:
                if not messages:
                    raise
                # What was claimed is in our hands, where nobody else looks for it. The next call says what is wrong.
        return messages

    def _find(self, max_frames: int, max_bytes: int) -> list[Message]:
        args = [self._keys.prefix, self._worker, max_frames, max_bytes, *self._audited, AUDIT_FIELDS, self._set]
        camera, cursor, items = self._ours(self._audit, [self._keys.cameras, self._order[0]], args)
        self._audited = (camera.decode(), cursor.decode())
        return self._messages(items)

    def _ours(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Call a script that makes messages this worker's."""
        try:
            return script(self._client, keys, args)
        except BrokerError:
            self._doubts = DOUBTS
            raise

    def _messages(self, items: Sequence[Any]) -> list[Message]:
        """The messages of a script's answer, with their payloads, which are fetched past Lua: see admit.lua.

        What is this worker's already and could not be fetched is fetched with the next call.
        """
        self._unfetched += items
        messages: list[Message] = []
        for some in _shares(self._unfetched):
            keys = [self._keys.payload(item[0].decode(), item[1].decode()) for item in some if _apart(item)]
            payloads: Iterator[bytes | None] = iter(())
            if keys:
                with translated("fetching payloads"):
                    payloads = iter(self._client.mget(keys))
            messages += [_message(item, next(payloads) if _apart(item) else _payload(item[3])) for item in some]
        self._unfetched.clear()
        return messages

    def release(self, messages: Iterable[Message]) -> int:
        """Hand unprocessed messages back, claimable at once; how many still were this worker's."""
        by_camera: dict[str, list[str]] = defaultdict(list)
        for message in messages:
            if not message.copy:  # a copy is nobody's loss
                by_camera[message.camera].append(message.entry_id)
        return sum(
            int(self._release(self._client, [self._keys.frames(camera)], [self._worker, *ids]))
            for camera, ids in by_camera.items()
        )

    def recall(self, in_hand: Iterable[Message]) -> int:
        """Hand back what is this worker's without its knowing, because an answer was lost; how many messages.

        Does nothing where no call that takes or claims has failed. To be called between two such calls, by whoever
        makes them, with all messages that came of them and are not settled.
        """
        if not self._doubts:
            return 0
        known = {f"{message.camera}|{message.entry_id}" for message in in_hand if not message.copy}
        known |= {f"{item[0].decode()}|{item[1].decode()}" for item in self._unfetched}
        back = self._hand_back(known)
        self._doubts -= 1
        return back

    def leave(self) -> int:
        """Hand back whatever is this worker's still, at its end; how many messages that were.

        That is what it took without hearing of it, because an answer was lost, and what it could not fetch.
        """
        self._unfetched.clear()
        return self._hand_back(())

    def _hand_back(self, but: Iterable[str]) -> int:
        return int(self._leave(self._client, [self._keys.cameras], [self._keys.prefix, self._worker, *but]))

    def reconcile(self) -> tuple[int, int]:
        """Put cameras with unread messages in line, and make missing groups; (cameras put in line, groups made)."""
        keys = [self._keys.cameras, self._keys.ready, self._keys.totals, self._keys.bell, self._keys.workers]
        woken, made, _ = self._reconcile(self._client, keys, [self._keys.prefix, FORGET_AFTER_MS])
        return int(woken), int(made)


def _copied(copy: Copy) -> Message:
    return Message(
        copy.camera,
        copy.entry_id,
        copy.epoch,
        copy.first_sequence,
        copy.frames,
        len(copy.payload),
        copy.admitted_us,
        0,
        copy.payload,
        copy=True,
    )


def _apart(item: Sequence[Any]) -> bool:
    """Whether a message's payload lies in a key of its own: admitted, its entry there and without payload."""
    return bool(item[2]) and bool(item[3]) and b"d" not in item[3][::2]


def _shares(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Items in runs of at most FETCH_BYTES, or one."""
    start, held = 0, 0
    for at, item in enumerate(items):
        size = int(item[2].split(b":")[3]) if item[2] else 0
        if at > start and held + size > FETCH_BYTES:
            yield items[start:at]
            start, held = at, 0
        held += size
    if items:
        yield items[start:]


def _message(item: Sequence[Any], payload: bytes | None) -> Message:
    camera, entry_id, meta = item[0].decode(), item[1].decode(), item[2]
    deliveries, crashes = item[4:] or (1, 0)
    if not meta:
        return Message(camera, entry_id, 0, 0, 0, len(payload or b""), 0, 0, payload, deliveries, crashes, False)
    frames, sequence, epoch, size, admitted_us, deadline_us = (int(part) for part in meta.split(b":"))
    return Message(
        camera, entry_id, epoch, sequence, frames, size, admitted_us, deadline_us, payload, deliveries, crashes
    )


def _payload(fields: Any) -> bytes | None:
    if not fields:
        return None
    pairs = dict(zip(fields[::2], fields[1::2], strict=True))
    payload = pairs.get(b"d")
    return payload if isinstance(payload, bytes) else b"".join(fields)
