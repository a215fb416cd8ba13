"""Giving way: a process that nobody waits for leaves the processor to those that somebody waits for."""

from __future__ import annotations

import os
from pathlib import Path


def give_way(nice: int) -> None:
    """Raise the niceness of every thread of this process to a level; one that is higher stays. New threads inherit it.

    Niceness is a thread's own on Linux, and libraries begin theirs when they are imported.
    """
    tasks = Path("/proc/self/task")
    threads = [int(task.name) for task in tasks.iterdir()] if tasks.is_dir() else [0]
    for thread in threads:
        try:
            if os.getpriority(os.PRIO_PROCESS, thread) < nice:
                os.setpriority(os.PRIO_PROCESS, thread, nice)
        except ProcessLookupError:  # it ended meanwhile
            continue
