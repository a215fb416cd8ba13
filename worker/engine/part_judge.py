"""The part judge: reads verdicts, keeps the book of parts, writes part verdicts. Kill it at any instant."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from gaussline.worker.broker.client import Redis, time_us
from gaussline.worker.broker.part_store import PartStore, PartWrite
from gaussline.worker.broker.verdicts import Verdicts
from gaussline.worker.contract.part_verdict import PartVerdict
from gaussline.worker.engine.part_book import LateFrame, OpenPart, PartBook, PartRule, Turn
from gaussline.worker.errors import BrokerError

READ = 200
"""Verdicts of one turn."""
RETRY_S = (0.1, 5.0)


class PartJudge:
    """Decides the parts of one line. Two of them at once disturb each other and double nothing: one turn of them wins.

    Args:
        on_turn: told of what was decided and what came late, once it is written.
        on_trouble: told of an outage, and of what Redis refused.
    """

    def __init__(
        self,
        client: Redis,
        line: str,
        rule: PartRule,
        *,
        remember_s: float = 86_400.0,
        on_turn: Callable[[Sequence[PartVerdict], Sequence[LateFrame]], None] = lambda decided, late: None,
        on_trouble: Callable[[BrokerError], None] = lambda error: None,
    ) -> None:
        self._client = client
        self._line = line
        self._rule = rule
        self._store = PartStore(client, line, remember_s)
        self._verdicts = Verdicts(client, line)
        self._on_turn = on_turn
        self._on_trouble = on_trouble
        self._book: PartBook | None = None
        self._revision, self._run = 0, ""
        self._cursor = "0-0"

    def step(self, block_s: float | None = None) -> int:
        """One turn: read verdicts, waiting up to `block_s` or the next deadline for some, decide, write. Entries read.

        Raises BrokerUnavailable, BrokerError; what was not written is made again from Redis.
        """
        book = self._open()
        # The clock first: what was written before this moment is in what is read after it.
        now_us = time_us(self._client)
        due_ms = book.next_deadline_ms
        if block_s is not None and due_ms is not None:
            block_s = min(block_s, max(0.001, due_ms / 1000 - now_us / 1e6 + 0.002))
        entries = self._verdicts.read(self._cursor, count=READ, block_s=block_s)
        try:
            if entries:
                unknown = {verdict["part"] for _, verdict in entries if verdict["part"]}
                decided = self._store.decided(part for part in unknown if book.get(part) is None)
                turn, cursor = book.read(entries, decided.__contains__, now_us), entries[-1][0]
            else:
                turn, cursor = book.expire(now_us // 1000, now_us), self._cursor
            if entries or turn.decided:
                self._write(book, turn, cursor, now_us)
        except BaseException:
            self._book = None  # the book has gone ahead of what is written
            raise
        return len(entries)

    def run(self, stopping: threading.Event, *, block_s: float = 1.0) -> None:
        """Decide until `stopping` is set; an outage of Redis is waited out, and so is a full one."""
        pause_s = RETRY_S[0]
        while not stopping.is_set():
            try:
                self.step(block_s)
                pause_s = RETRY_S[0]
            except BrokerError as error:
                self._on_trouble(error)
                stopping.wait(pause_s)
                pause_s = min(2 * pause_s, RETRY_S[1])

    def _open(self) -> PartBook:
        if self._book is None:
            state = self._store.load()
            # Verdicts stay until this judge has them; its cursor there is written with every turn. Without a place
            # among the subscribers it must not begin.
            self._verdicts.register("parts", since=state.cursor)
            parts = [OpenPart.from_json(part, text) for part, text in state.open.items()]
            self._book = PartBook(self._line, self._rule, parts)
            self._revision, self._run, self._cursor = state.revision, state.run, state.cursor
        return self._book

    def _write(self, book: PartBook, turn: Turn, cursor: str, now_us: int) -> None:
        still = [(part, found.to_json()) for part in sorted(turn.touched) if (found := book.get(part)) is not None]
        write = PartWrite(
            cursor,
            open=still,
            closed=sorted(turn.closed),
            decided=turn.decided,
            late=[(late.part, late.frame) for late in turn.late],
            without_part=turn.without_part,
        )
        revision = self._store.commit(self._revision, self._run, write, now_us)
        if revision is None:
            # Another judge was first, another server is the master, or Redis forgot this judge: it begins again from
            # what is there.
            self._book = None
            return
        self._revision, self._cursor = revision, cursor
        if turn.decided or turn.late:
            self._on_turn(turn.decided, turn.late)
