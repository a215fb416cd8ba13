"""Python's garbage collector in a worker: what start-up made is not looked at again."""

from __future__ import annotations

import gc


def freeze_start_up() -> None:
    """Take everything that lives now out of the collector's sight.

    Modules, weights and models stay for the life of the process. A full collection walks all of them, with every thread
    of the interpreter stopped, to find the few cycles that frames leave.
    """
    gc.collect()
    gc.freeze()
