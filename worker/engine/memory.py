"""Memory of a worker's process: what start-up made is not looked at again, what a batch frees is kept for the next."""

from __future__ import annotations

import ctypes
import gc
from typing import Final

_TRIM_THRESHOLD: Final = (-1, 2**30)
_TOP_PAD: Final = (-2, 64 * 2**20)
_MMAP_THRESHOLD: Final = (-3, 32 * 2**20)


def settle_memory() -> None:
    """Once, when everything is loaded and before the stages begin.

    Modules, weights and models stay for the life of the process, so they are taken out of the collector's sight: a
    full collection walks all of them, with every thread of the interpreter stopped, to find the few cycles that frames
    leave.

    And glibc's allocator is told to keep what a pass of the backbone frees, tens of megabytes that the next one asks
    for again: given back to the system, every page of it is faulted in and cleared anew, which was measured at up to a
    tenth of a lane's time (numbers and largest values: mallopt(3)). Other allocators are left as they are.
    """
    gc.collect()
    gc.freeze()
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # no glibc
        return
    for parameter, value in (_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD):
        mallopt(parameter, value)
