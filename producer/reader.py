"""Reads a source ahead of the sender, in a thread of its own: a slow Redis must not make a camera's frames stale."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable
from dataclasses import replace

from gaussline.producer.clock import Clock, SystemClock
from gaussline.producer.shot import Shot
from gaussline.producer.sources.rate import Pace


class Reader:
    """A bounded hand-over from a source to whoever sends.

    Shots are stamped as they are read, so that time spent waiting here counts as latency. `take` gives what lies ready,
    several at once only when they came faster than they were sent: batches that cost no waiting.

    Args:
        pace: moments at which shots are read; None reads as fast as they are taken.
        depth: most shots that wait.
        live: the source does not wait for us: what finds no room is dropped and counted, not held back.
        limit: end after this many shots.
    """

    def __init__(
        self,
        source: Iterable[Shot],
        *,
        pace: Pace | None = None,
        depth: int = 4,
        live: bool = False,
        limit: int | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._source = source
        self._pace = pace
        self._live = live
        self._limit = limit
        self._clock: Clock = clock or SystemClock()
        self._room = threading.Semaphore(depth)
        # A SimpleQueue may be put into by a signal handler, whatever its thread is doing.
        self._queue: queue.SimpleQueue[Shot | BaseException | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self.overrun = 0
        """Shots of a live source that found no room."""
        self._ended = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="source", daemon=True)

    def start(self) -> Reader:
        """Begin to read."""
        self._thread.start()
        return self

    def take(self, most: int) -> list[Shot]:
        """Wait for a shot; it and up to `most` - 1 more that lie ready. Empty at the end or after `stop`.

        Raises what the source raised, in its place in the order.
        """
        shots: list[Shot] = []
        while not self._ended and len(shots) < most:
            try:
                item = self._queue.get(block=not shots)
            except queue.Empty:
                break
            if isinstance(item, Shot):
                self._room.release()
                shots.append(item)
            else:
                self._ended, self._error = True, item
        if not shots and self._error is not None:
            error, self._error = self._error, None
            raise error
        return shots

    def stop(self) -> None:
        """Let `take` end, and read no further. Safe in a signal handler."""
        self._queue.put(None)

    def close(self) -> None:
        """Stop the thread; it ends at its next shot."""
        self._stopping.set()
        self._room.release()
        self.stop()

    def _run(self) -> None:
        end: BaseException | None = None
        try:
            self._read()
        except BaseException as error:
            end = error
        self._queue.put(end)

    def _read(self) -> None:
        if self._limit == 0:
            return
        for count, shot in enumerate(self._source, 1):
            if self._pace is not None:
                self._pace.wait(self._stopping)
            if self._stopping.is_set():
                return
            stamped = shot if shot.captured_at is not None else replace(shot, captured_at=self._clock.now_us())
            if self._room.acquire(blocking=not self._live):
                if self._stopping.is_set():
                    return
                self._queue.put(stamped)
            else:
                self.overrun += 1
            if count == self._limit:
                return
