"""Reading verdicts: from now on, from a time on, or with a durable cursor that a subscriber moves when it is done."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from gaussline.worker.broker.client import Redis, open_redis, translated
from gaussline.worker.broker.exactly_once import Effect, ExactlyOnce, entry_order
from gaussline.worker.broker.replication import waiting_of
from gaussline.worker.broker.script import Script
from gaussline.worker.contract.keys import Keys, check_name
from gaussline.worker.errors import NotFound, Unreplicated
from gaussline.worker.settings import Settings

BLOCK_S = 1.0
_ENTRY = re.compile(rb"\d{1,20}-\d{1,20}", re.ASCII)


class Verdicts:
    """The verdicts of one line.

    A registered subscriber has a durable cursor: verdicts after it stay until it acknowledges them (within the stream's
    hard bound, see docs/contract.md), and come again after a crash. Delivery is at least once; `id` recognises a
    verdict that was read twice.

    Args:
        redis: a URL, settings, or a client (of `open_redis` or `connect`), which has its own `wait_replicas`. With
            a URL or nothing the rest (password file, certificates) comes from the environment, as for every process.
        line: None takes that of the settings.
        wait_replicas: hand out only what so many replicas have; see docs/reliability.md, High availability.

    Raises:
        SettingsError: the environment's settings make no sense.
    """

    def __init__(
        self,
        redis: str | Settings | Redis | None = None,
        line: str | None = None,
        *,
        wait_replicas: int | None = None,
    ) -> None:
        if redis is None or isinstance(redis, str):
            redis = Settings.load(redis_url=redis, line=line, wait_replicas=wait_replicas)
        if isinstance(redis, Settings):
            self._client: Redis = open_redis(redis)
            line = line or redis.line
        else:
            self._client = redis
        self._keys = Keys(line or "line1")
        self._stream = self._keys.verdicts
        self._cursors = self._keys.subscribers
        self._acknowledge = Script("acknowledge")

    @property
    def line(self) -> str:
        """Name of the line."""
        return self._keys.line

    @property
    def place(self) -> str:
        """What these verdicts are told apart by from others in one subscriber's database."""
        return self._keys.line

    # --- subscribers -------------------------------------------------------------------------------------------------
    def register(self, subscriber: str, *, since: str = "0-0") -> None:
        """Make a durable cursor, at the oldest verdict or after entry `since`; one that exists stays as it is."""
        check_name("subscriber", subscriber)
        with translated("registering a subscriber"):
            # Looked at first: one that an operator has registered needs no right to write here.
            if not self._client.hexists(self._cursors, subscriber):
                self._client.hsetnx(self._cursors, subscriber, since)

    def unregister(self, subscriber: str) -> None:
        """Forget a cursor: verdicts are no longer kept for it. Raises NotFound."""
        with translated("unregistering a subscriber"):
            # No transaction: at a full maxmemory Redis lets nobody queue one, and this is what lets verdicts go. The
            # cursor first: a registration without one begins at its beginning, a cursor without one would be taken for
            # that of the next subscriber of this name.
            pipeline = self._client.pipeline(transaction=False)
            pipeline.delete(self._cursor(subscriber))
            pipeline.hdel(self._cursors, subscriber)
            if not pipeline.execute()[1]:
                raise NotFound(f"no subscriber {subscriber!r} on line {self._keys.line}")

    def subscribers(self) -> dict[str, str]:
        """Every registered subscriber and the last entry it acknowledged."""
        with translated("listing subscribers"):
            names = [name.decode() for name in self._client.hkeys(self._cursors)]
        return {name: self.position(name) for name in sorted(names)}

    def position(self, subscriber: str) -> str:
        """The last entry that a subscriber acknowledged, or was registered after. Raises NotFound."""
        with translated("reading a cursor"):
            registered = self._client.hget(self._cursors, subscriber)
            own = self._client.get(self._cursor(subscriber))
        if registered is None:
            raise NotFound(f"no subscriber {subscriber!r} on line {self._keys.line}")
        return max(_entry(registered), _entry(own), key=entry_order)

    def ack(self, subscriber: str, entry_id: str) -> bool:
        """Everything up to this entry is done. Raises NotFound.

        False where the cursor stood there already, or where this server never had the entry: it was read of another
        master, and says nothing of what this one has; `position` tells where to go on.
        """
        keys = [self._cursors, self._cursor(subscriber), self._stream]
        moved = int(self._acknowledge(self._client, keys, [subscriber, entry_id]))
        if moved < 0:
            raise NotFound(f"no subscriber {subscriber!r} on line {self._keys.line}")
        return moved == 1

    def _cursor(self, subscriber: str) -> str:
        return self._keys.cursor(subscriber)

    @property
    def moves(self) -> int:
        """How often another server became the master of this line's Redis, as far as this client has seen.

        Where two were masters beside each other for a while, what the new one has may lie before what was read of the
        old one: whoever has a durable cursor goes back to it.
        """
        return int(getattr(self._client, "moves", 0))

    # --- reading -----------------------------------------------------------------------------------------------------
    def last_id(self) -> str:
        """The newest entry's id, `0-0` where there is none: what to follow from to see only what comes next."""
        with translated("reading verdicts"):
            newest = self._client.xrevrange(self._stream, count=1)
        return newest[0][0].decode() if newest else "0-0"

    def deleted_up_to(self) -> str:
        """The newest entry that was ever trimmed, `0-0` for none, or where the server is too old to tell (6.2)."""
        with translated("reading verdicts"):
            if not self._client.exists(self._keys.verdicts):
                return "0-0"
            told = self._client.xinfo_stream(self._keys.verdicts)
        entry = told.get("max-deleted-entry-id", b"0-0")
        return entry.decode() if isinstance(entry, bytes) else str(entry)

    def exactly_once(self, connection: Any, subscriber: str, effect: Effect, **options: Any) -> ExactlyOnce:
        """Verdicts into a database of the subscriber's own, each exactly once: `.run()` or `.step()` does it.

        `effect(cursor, verdict)` writes what the verdict means through a DB-API cursor of `connection`; that and the
        subscriber's cursor are committed in one transaction. Options as of `ExactlyOnce`.
        """
        return ExactlyOnce(self, connection, subscriber, effect, **options)

    def read(self, after: str, *, count: int = 500, block_s: float | None = None) -> list[tuple[str, dict[str, Any]]]:
        """Entries after an entry id: (entry id, verdict). Waits up to `block_s` where there is none."""
        entries = self.entries(after, count=count, block_s=block_s)
        return [(entry_id, json.loads(fields[b"json"])) for entry_id, fields in entries]

    def entries(
        self, after: str, *, count: int = 500, block_s: float | None = None
    ) -> list[tuple[str, dict[bytes, bytes]]]:
        """The same as they stand in the stream: (entry id, fields)."""
        block = None if block_s is None else max(1, int(block_s * 1000))
        with translated("reading verdicts"):
            answer = self._read(after, count, block)
        return [(entry_id.decode(), fields) for _, entries in answer or [] for entry_id, fields in entries]

    def _read(self, after: str, count: int, block: int | None) -> Any:
        """What XREAD answers. Where replicas are asked for, only what enough of them have: what they lack may be judged
        again after a failover, and a verdict that nobody was handed is then no second one."""
        waiting = waiting_of(self._client)
        if not waiting:
            return self._client.xread({self._stream: after}, count=count, block=block)
        pipeline = self._client.pipeline(transaction=False)
        pipeline.xread({self._stream: after}, count=count, block=block)
        pipeline.echo("")  # WAIT is about all that was written before this connection's last command
        pipeline.execute_command(*waiting.command)
        answer, _, replicas = pipeline.execute()
        if answer and int(replicas) < waiting.replicas and waiting.hold:
            raise Unreplicated(
                f"reading verdicts: fewer than {waiting.replicas} replica(s) had them within {waiting.timeout_s:g} s"
            )
        return answer

    def find(self, frame_id: str, *, count: int = 1000) -> dict[str, Any] | None:
        """The verdict of one frame, None where it is not on the stream (any more).

        The stream has no index by frame: it is read backwards from its end, `count` entries a call, so a young verdict
        is found at once and a missing one costs a reading of the whole stream.
        """
        wanted, position = frame_id.encode(), "+"
        while True:
            with translated("looking for a verdict"):
                entries = self._client.xrevrange(self._stream, max=position, count=count)
            for _, fields in entries:
                if fields[b"id"] == wanted:
                    found: dict[str, Any] = json.loads(fields[b"json"])
                    return found
            if len(entries) < count:
                return None
            position = f"({entries[-1][0].decode()}"

    def newest(self, count: int) -> list[dict[str, Any]]:
        """The newest verdicts, the newest first."""
        with translated("reading verdicts"):
            entries = self._client.xrevrange(self._keys.verdicts, count=count)
        return [json.loads(fields[b"json"]) for _, fields in entries]

    def follow(
        self, *, group: str | None = None, after: str | None = None, stop_after_s: float | None = None
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Verdicts for ever, or until none came for `stop_after_s`.

        With `group` from that subscriber's cursor on (it is registered where it is new; acknowledge with `ack`), else
        after the entry `after`, else from now on.
        """
        moves = self.moves
        if group is not None:
            self.register(group)
            position = self.position(group)
        else:
            position = self.last_id() if after is None else after
        idle_s = 0.0
        while True:
            entries = self.read(position, block_s=BLOCK_S)
            if group is not None and self.moves != moves:
                moves = self.moves
                self.register(group)
                position = min(position, self.position(group), key=entry_order)
                continue
            for entry_id, verdict in entries:
                position = entry_id
                yield entry_id, verdict
            idle_s = 0.0 if entries else idle_s + BLOCK_S
            if stop_after_s is not None and idle_s >= stop_after_s:
                return


def _entry(written: bytes | None) -> str:
    """An entry id; the beginning where none stands, or what is none: a subscriber may write anything there."""
    return written.decode() if written is not None and _ENTRY.fullmatch(written) else "0-0"


class PartVerdicts(Verdicts):
    """The part verdicts of one line: the same, with subscribers of their own."""

    def __init__(
        self,
        redis: str | Settings | Redis | None = None,
        line: str | None = None,
        *,
        wait_replicas: int | None = None,
    ) -> None:
        super().__init__(redis, line, wait_replicas=wait_replicas)
        self._stream = self._keys.parts
        self._cursors = self._keys.part_subscribers

    @property
    def place(self) -> str:
        return f"{self._keys.line}/parts"

    def _cursor(self, subscriber: str) -> str:
        return self._keys.part_cursor(subscriber)


def trim_parts(client: Redis, line: str, *, min_age_s: float, max_bytes: int) -> int:
    """Trim part verdicts as verdicts are; how many went. At the bound the oldest go, and are counted."""
    keys = Keys(line)
    args = [int(min_age_s * 1e6), max_bytes, "trim", keys.part_cursor("")]
    return int(_TRIM(client, [keys.parts, keys.part_subscribers, keys.part_state], args)[0])


def trim_verdicts(client: Redis, line: str, *, min_age_s: float, max_bytes: int, policy: str) -> tuple[int, int, int]:
    """Trim what every subscriber has and what is old enough: (trimmed, of them unread by somebody, bytes left)."""
    keys = Keys(line)
    args = [int(min_age_s * 1e6), max_bytes, policy, keys.cursor("")]
    trimmed, unread, left = _TRIM(client, [keys.verdicts, keys.subscribers, keys.totals], args)
    return int(trimmed), int(unread), int(left)


_TRIM = Script("trim")
