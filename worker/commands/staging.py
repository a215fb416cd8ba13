"""What the demos share: steps that are said and ticked off, processes that are waited for, signals that clean up."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gaussline.worker.commands.child import Child
from gaussline.worker.commands.console import err
from gaussline.worker.errors import GausslineError

LINE = "demo"
START_S = 180.0
"""Longest start of a worker: it imports torch and reads weights, on a machine that may be slow and busy."""


def worker_settings(extractor: Any, weights: Path | None, port: int) -> dict[str, str]:
    """What was measured here need not be measured again there."""
    settings = {
        "GAUSSLINE_HTTP_PORT": str(port),
        "GAUSSLINE_LOG_LEVEL": "warning",
        "GAUSSLINE_LOG_FORMAT": "text",
        "GAUSSLINE_DEVICE": extractor.runtime.device,
        "GAUSSLINE_BATCH_MAX_FRAMES": str(extractor.runtime.batch_size),
        "GAUSSLINE_MEMORY_FORMAT": extractor.runtime.memory_format,
        "GAUSSLINE_ALLOW_RANDOM_WEIGHTS": str(extractor.spec.random_weights).lower(),
    }
    return settings if weights is None else settings | {"GAUSSLINE_WEIGHTS": str(weights.resolve())}


def wait_for_worker(client: Any, worker: Child) -> None:
    """Until the line's one worker says that it lives. Raises GausslineError where it ends, or takes too long."""
    from gaussline.worker.contract.keys import Keys

    end = time.monotonic() + START_S
    while not client.hlen(Keys(LINE).workers):
        worker.check()
        if time.monotonic() > end:
            raise GausslineError(f"the worker was not ready within {START_S:.0f} s")
        time.sleep(0.05)


@contextlib.contextmanager
def step(name: str) -> Iterator[Any]:
    """One step of the demo: said when it begins, ticked off with its time when it is done."""
    notes: list[str] = []
    begin = time.monotonic()
    if err().is_terminal:
        with err().status(f"{name} …"):
            yield notes.append
    else:
        note(f"{name} …")
        yield notes.append
    done(": ".join((name, *notes)), begin)


def done(text: str, begin: float) -> None:
    """Tick a step off that began at `begin` of the monotonic clock."""
    seconds = time.monotonic() - begin
    err().print(f"✓ {text} ({seconds:.1f} s)", highlight=False, markup=False, soft_wrap=True)


def note(text: str) -> None:
    """Say something."""
    err().print(f"  {text}", highlight=False, markup=False, soft_wrap=True)


def stop_like_ctrl_c(stack: contextlib.ExitStack) -> None:
    """SIGTERM ends the demo as Ctrl-C does: everything it started is stopped."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        stack.callback(signal.signal, number, signal.getsignal(number))
    signal.signal(signal.SIGTERM, interrupt)


def let_nothing_interrupt() -> None:
    """An impatient second Ctrl-C must not leave half of it behind; what is stopped now ends in bounded time."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
