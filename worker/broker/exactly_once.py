"""Exactly once: what a verdict causes in a subscriber's own database, and the cursor, in one transaction of it.

Delivery of verdicts is at least once, whatever a stream does: a subscriber can die between its work and its
acknowledgement. But where the work is a row in a database, the cursor can be a row beside it. Then both are there or
neither is, and a repeated verdict finds the cursor past it. Redis's own cursor follows behind; it only says what may be
trimmed.

Two tables are made in the subscriber's database: `gaussline_cursor` (where this subscriber stands) and
`gaussline_seen` (the ids of the last verdicts). The second one is for a Redis that lost its newest seconds, or failed
over: there a frame may be judged again, and its verdict then has another entry but the same id.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from gaussline.worker.contract.keys import check_name
from gaussline.worker.errors import BrokerUnavailable, Conflict, NotFound, SettingsError

START = "0-0"
RETRY_S = (0.1, 5.0)
_MARKS = {"qmark": "?", "format": "%s", "pyformat": "%s"}
_TABLES = (
    """CREATE TABLE IF NOT EXISTS gaussline_cursor (line VARCHAR(80) NOT NULL, subscriber VARCHAR(64) NOT NULL,
    entry VARCHAR(48) NOT NULL, applied BIGINT NOT NULL, PRIMARY KEY (line, subscriber))""",
    """CREATE TABLE IF NOT EXISTS gaussline_seen (line VARCHAR(80) NOT NULL, subscriber VARCHAR(64) NOT NULL,
    id VARCHAR(512) NOT NULL, applied BIGINT NOT NULL, PRIMARY KEY (line, subscriber, id))""",
)
Effect = Callable[[Any, dict[str, Any]], None]
"""Called with a DB-API cursor inside the transaction and one verdict. It must not commit."""


class Source(Protocol):
    """What is needed of `Verdicts`."""

    @property
    def line(self) -> str:
        """Name of the line."""

    @property
    def place(self) -> str:
        """What its cursors are told apart by: a line's verdicts and its part verdicts have each their own."""

    def register(self, subscriber: str, *, since: str = START) -> None:
        """Make a durable cursor."""

    def position(self, subscriber: str) -> str:
        """A registered subscriber's cursor."""

    def ack(self, subscriber: str, entry_id: str) -> bool:
        """Move a cursor."""

    def read(self, after: str, *, count: int = 500, block_s: float | None = None) -> list[tuple[str, dict[str, Any]]]:
        """Entries after an entry."""

    def deleted_up_to(self) -> str:
        """The newest entry that was ever trimmed."""

    @property
    def moves(self) -> int:
        """How often another server became the master."""


class ExactlyOnce:
    """Applies every verdict of a line to one database, once.

    Not for several threads. Several processes with one subscriber name are safe: all but one of them fail (Conflict).

    Args:
        connection: a DB-API 2.0 connection in its usual transaction mode (no autocommit), for this alone.
        subscriber: name of the durable cursor, in the database and in Redis.
        effect: what to do with one verdict, within the transaction.
        batch: most verdicts of one transaction; a crash repeats none and skips none of them.
        remember: how many verdict ids are remembered against a Redis that lost data.
        paramstyle: of the driver; None asks its module.
        accept_gap: go on where verdicts were trimmed before this database had them, instead of raising NotFound.
    """

    def __init__(
        self,
        source: Source,
        connection: Any,
        subscriber: str,
        effect: Effect,
        *,
        batch: int = 100,
        remember: int = 100_000,
        paramstyle: str | None = None,
        accept_gap: bool = False,
    ) -> None:
        self._source = source
        self._connection = connection
        self._subscriber = check_name("subscriber", subscriber)
        self._effect = effect
        self._batch = batch
        self._remember = remember
        self._mark = _mark(connection, paramstyle)
        self._accept_gap = accept_gap
        self._position: str | None = None
        self._applied = 0
        self._moves = source.moves
        self.repeated = 0
        """Verdicts that came again under another entry, and were left out."""

    @property
    def position(self) -> str:
        """The last entry whose verdict is in the database."""
        return self._open()

    def step(self, block_s: float | None = None) -> int:
        """Apply the next verdicts in one transaction, waiting up to `block_s` for some; how many entries were read.

        What `effect` or the database raises comes through, after a rollback: nothing of the batch is applied then.
        Raises BrokerUnavailable, Conflict where another process moved this cursor, NotFound at a gap.
        """
        position = self._open()
        entries = self._source.read(position, count=self._batch, block_s=block_s)
        gone = self._source.deleted_up_to() if entries and not self._accept_gap else START
        if self._source.moves != self._moves:
            self._go_back(position)
            return 0
        if entries:
            self._apply(position, entries, gone)
            self._acknowledge()
        return len(entries)

    def run(self, stopping: threading.Event | None = None, *, idle_s: float | None = None, block_s: float = 1.0) -> int:
        """Apply verdicts until `stopping` is set, or none came for `idle_s`; how many entries were read.

        An outage of Redis is waited out.
        """
        stopping = stopping or threading.Event()
        total, pause_s, last_s = 0, RETRY_S[0], time.monotonic()
        while not stopping.is_set():
            try:
                count = self.step(block_s)
            except BrokerUnavailable:
                stopping.wait(pause_s)
                pause_s = min(2 * pause_s, RETRY_S[1])
                continue
            pause_s, total = RETRY_S[0], total + count
            if count:
                last_s = time.monotonic()
            elif idle_s is not None and time.monotonic() - last_s >= idle_s:
                break
        return total

    # --- the database ------------------------------------------------------------------------------------------------
    def _open(self) -> str:
        """Where the database stands; at first its tables, its row, and the subscription are made."""
        if self._position is not None:
            return self._position
        self._source.register(self._subscriber)
        stands = self._source.position(self._subscriber)
        cursor = self._connection.cursor()
        try:
            for table in _TABLES:
                cursor.execute(table)
            row = self._row(cursor)
            if row is None:
                # A database that is new takes over where the subscriber stands in Redis.
                values = (self._source.place, self._subscriber, stands, 0)
                cursor.execute(self._sql("INSERT INTO gaussline_cursor VALUES (?, ?, ?, ?)"), values)
                row = (stands, 0)
            else:
                self._check_gap(str(row[0]), stands)
            self._connection.commit()
        except BaseException:
            self._connection.rollback()
            raise
        finally:
            cursor.close()
        self._position, self._applied = str(row[0]), int(row[1])
        return self._position

    def _row(self, cursor: Any) -> Any:
        cursor.execute(
            self._sql("SELECT entry, applied FROM gaussline_cursor WHERE line = ? AND subscriber = ?"),
            (self._source.place, self._subscriber),
        )
        return cursor.fetchone()

    def _check_gap(self, position: str, stands: str) -> None:
        gone = max(self._source.deleted_up_to(), stands, key=entry_order)
        if entry_order(gone) > entry_order(position) and not self._accept_gap:
            raise self._gap(position, gone)

    def _gap(self, position: str, gone: str) -> NotFound:
        return NotFound(
            f"verdicts of line {self._source.line} after entry {position} were given up before this database had them "
            f"(up to {gone}): the verdict stream reached its bound, or the database is an older copy; start with "
            "accept_gap=True to go on with what is left"
        )

    def _go_back(self, position: str) -> None:
        """Another server is the master: what it has from our cursor in it on, less what is in the database already."""
        moves = self._source.moves
        self._source.register(self._subscriber)
        stands = self._source.position(self._subscriber)
        if entry_order(stands) < entry_order(position):
            cursor = self._connection.cursor()
            try:
                sql = "UPDATE gaussline_cursor SET entry = ? WHERE line = ? AND subscriber = ? AND entry = ?"
                cursor.execute(self._sql(sql), (stands, self._source.place, self._subscriber, position))
                self._connection.commit()
            except BaseException:
                self._connection.rollback()
                raise
            finally:
                cursor.close()
                self._position = None
        self._moves = moves

    def _apply(self, position: str, entries: Sequence[tuple[str, dict[str, Any]]], gone: str) -> None:
        after, applied, repeated = entries[-1][0], self._applied, 0
        where = (self._source.place, self._subscriber)
        cursor = self._connection.cursor()
        try:
            # First of all the cursor, under a compare-and-set: it takes the database's lock before any effect.
            sql = "UPDATE gaussline_cursor SET entry = ?, applied = ? WHERE line = ? AND subscriber = ? AND entry = ?"
            cursor.execute(self._sql(sql), (after, applied + len(entries), *where, position))
            if cursor.rowcount != 1:
                raise Conflict(f"another process moved the cursor of subscriber {self._subscriber}: run one of them")
            # Nobody else has moved it, so nothing behind it was there to be trimmed but at the stream's bound.
            if entry_order(gone) > entry_order(position):
                raise self._gap(position, gone)
            for _, verdict in entries:
                applied += 1
                sql = "SELECT 1 FROM gaussline_seen WHERE line = ? AND subscriber = ? AND id = ?"
                cursor.execute(self._sql(sql), (*where, verdict["id"]))
                if cursor.fetchone() is not None:
                    repeated += 1
                    continue
                sql = "INSERT INTO gaussline_seen VALUES (?, ?, ?, ?)"
                cursor.execute(self._sql(sql), (*where, verdict["id"], applied))
                self._effect(cursor, verdict)
            if applied // 1000 != self._applied // 1000:
                sql = "DELETE FROM gaussline_seen WHERE line = ? AND subscriber = ? AND applied <= ?"
                cursor.execute(self._sql(sql), (*where, applied - self._remember))
            self._connection.commit()
        except BaseException:
            self._connection.rollback()
            self._position = None  # whatever happened, the database knows where it stands
            raise
        finally:
            cursor.close()
        self._position, self._applied = after, applied
        self.repeated += repeated

    def _acknowledge(self) -> None:
        """Tell Redis, which only has to know what it may trim; a failure is made good by the next one."""
        assert self._position is not None
        try:
            try:
                self._source.ack(self._subscriber, self._position)
            except NotFound:  # another master has all that it has to tell, this one what comes after
                since = self._position if self._source.moves == self._moves else START
                self._source.register(self._subscriber, since=since)
        except BrokerUnavailable:
            return

    def _sql(self, text: str) -> str:
        return text.replace("?", self._mark)


def _mark(connection: Any, paramstyle: str | None) -> str:
    module = sys.modules.get(type(connection).__module__.split(".")[0])
    style = paramstyle or getattr(module, "paramstyle", None)
    if style not in _MARKS:
        raise SettingsError(f"paramstyle {style!r} is none of {', '.join(_MARKS)}: name the driver's own")
    autocommit = getattr(connection, "autocommit", None)
    # sqlite3 before Python 3.12 says it so; from there on `autocommit` False overrules it.
    plain = getattr(connection, "isolation_level", "") is None and type(connection).__module__ == "sqlite3"
    if autocommit is True or (plain and autocommit is not False):
        raise SettingsError("the connection commits by itself: effect and cursor need one transaction")
    return _MARKS[style]


def entry_order(entry_id: str) -> tuple[int, int]:
    """What entry ids are compared by."""
    left, _, right = entry_id.partition("-")
    return int(left), int(right)
