"""SIGTERM and SIGINT, handed to ordinary code."""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def on_signals(first: Callable[[signal.Signals], None], again: Callable[[signal.Signals], None]) -> Iterator[None]:
    """While this is open, the first signal calls `first`, and each later one `again`, in a thread of their own.

    A handler runs between two instructions of the main thread, which may hold any lock: a handler that sets an event or
    writes a log line can wait for ever for itself. So it only puts a number into a queue that is made for this.
    A signal that whoever started us has set aside (nohup, a background job of a shell) stays so.
    """
    caught: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    def handler(number: int, frame: FrameType | None) -> None:
        caught.put(number)

    def act() -> None:
        call = first
        while (number := caught.get()) is not None:
            call(signal.Signals(number))
            call = again

    ours = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    thread = threading.Thread(target=act, name="signals", daemon=True)
    thread.start()
    before = {number: signal.signal(number, handler) for number in ours}
    try:
        yield
    finally:
        for number, handling in before.items():
            signal.signal(number, handling)
        caught.put(None)
        thread.join(1.0)
