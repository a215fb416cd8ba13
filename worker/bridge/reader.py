"""Reads the stream for a bridge, from a thread of its own: waiting for verdicts must not hold up what is under way."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gaussline.worker.broker.exactly_once import entry_order
from gaussline.worker.broker.verdicts import Verdicts
from gaussline.worker.errors import BrokerError

BLOCK_S = 1.0
RETRY_S = (0.1, 5.0)
Entries = Sequence[tuple[str, dict[bytes, bytes]]]


@dataclass(frozen=True, slots=True)
class Arrived:
    """Entries of the stream, in its order; never none."""

    entries: Entries


@dataclass(frozen=True, slots=True)
class Gap:
    """Entries after one, up to another, were trimmed before they were read."""

    after: str
    upto: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Redis did not give them; the reader goes on trying."""

    error: BrokerError


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Another server is the master: what it has may lie before what was read, and the cursor there tells from where."""


News = Arrived | Gap | Unreadable | Elsewhere


class Reader:
    """Reads only what it was asked for, once for each `ask`, so that what is in memory is bounded by who asks.

    Args:
        after: the entry to begin after.
        moves: of the source when that entry was asked for.
        gone: the newest entry that was trimmed by then.
        tell: called from the reader's thread.
    """

    def __init__(self, source: Verdicts, after: str, moves: int, gone: str, tell: Callable[[News], None]) -> None:
        self._source = source
        self._moves = moves
        self._position = after
        self._gone = gone
        self._tell = tell
        self._asked: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="verdicts", daemon=True)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *about: object) -> None:
        self._ending.set()
        self._asked.put(None)
        self._thread.join(2 * BLOCK_S)

    def ask(self, count: int) -> None:
        """Tell of the next entries, `count` at most, as soon as there are some."""
        self._asked.put(count)

    def _run(self) -> None:
        while (count := self._asked.get()) is not None:
            self._read(count)

    def _read(self, count: int) -> None:
        pause_s = RETRY_S[0]
        while not self._ending.is_set():
            try:
                entries = self._source.entries(self._position, count=count, block_s=BLOCK_S)
                gone = self._source.deleted_up_to() if entries else self._gone
            except BrokerError as error:
                self._tell(Unreadable(error))
                self._ending.wait(pause_s)
                pause_s = min(2 * pause_s, RETRY_S[1])
                continue
            pause_s = RETRY_S[0]
            if self._source.moves != self._moves:
                self._tell(Elsewhere())
                return
            if entries:
                if gone != self._gone and gap(gone, self._position):
                    self._tell(Gap(self._position, gone))
                self._gone = gone
                self._position = entries[-1][0]
                self._tell(Arrived(entries))
                return


def gap(gone: str, position: str) -> bool:
    """Whether what was trimmed lies behind an entry; before the first one nobody has missed anything."""
    return position != "0-0" and entry_order(gone) > entry_order(position)
