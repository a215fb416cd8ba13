"""A Redis that can be killed, stopped and starved of disk, and started again from its append-only file."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import redis

from gaussline.worker.broker.embedded import EmbeddedRedis, find_server
from tests.support.waiting import eventually

UNSYNCED_S: Final = 1.0
"""What a power cut may take, by Redis's own word: a second, and up to two where the disk is slow."""


class Server:
    """A Redis that can be killed, stopped and starved of disk, and started again from its append-only file.

    With `appendfsync everysec` a kill is a power cut: what was written to the file in the last `UNSYNCED_S` is gone, as
    if the system had not come to bring it to the disk. A process alone that is killed loses nothing of it.
    """

    def __init__(self, folder: Path, appendfsync: Any = "always") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # A file that may not grow ends a process by a signal; where that is ignored, writes fail as on a full disk.
        program = folder / "server"
        program.write_text(f"#!/bin/sh\ntrap '' XFSZ\nexec {find_server()} \"$@\"\n", "utf-8")
        program.chmod(0o700)
        self.redis = EmbeddedRedis(
            folder / "data",
            server=str(program),
            appendfsync=appendfsync,
            options={"auto-aof-rewrite-min-size": "16mb"},
        )
        self.up = False
        self.stopped = False
        self.cuts_us: list[int] = []
        """When it lost what was not synced yet: microseconds since the Unix epoch."""
        self._full_since_us = 0
        self._holed = False
        self._sizes: deque[tuple[float, Path, int]] = deque(maxlen=500)
        self._ending = threading.Event()
        if appendfsync == "everysec":
            threading.Thread(target=self._watch_file, name="append-only file", daemon=True).start()

    def _watch_file(self) -> None:
        while not self._ending.wait(0.01):
            with contextlib.suppress(OSError):
                file = self._file()
                if file is not None:
                    self.seen(file, file.stat().st_size, time.monotonic())

    def seen(self, file: Path, size: int, at_s: float) -> None:
        """How long the file was at a moment."""
        self._sizes.append((at_s, file, size))

    def _file(self) -> Path | None:
        """What is being appended to."""
        files = (self.redis.folder / "appendonlydir").glob("*.incr.aof")
        return max(files, key=lambda file: int(file.name.split(".")[-3]), default=None)

    def _lose_what_was_not_synced(self) -> None:
        end, now = self._file(), time.monotonic()
        before = [size for at, file, size in self._sizes if file == end and at <= now - UNSYNCED_S]
        if end is not None and before:
            # It may be shorter by now: Redis takes back a write that a full disk cut off.
            os.truncate(end, min(before[-1], end.stat().st_size))
        self._sizes.clear()

    def start(self) -> None:
        """Start it, where it is not running."""
        if not self.up:
            self.redis.start()
            self.up = True
            self._full_since_us = 0

    def kill(self) -> None:
        """SIGKILL; a power cut where the file is not synced at each write."""
        if self.redis.appendfsync == "everysec":
            # On a full disk nothing was written since it filled up: what was answered at that moment goes too.
            self.cuts_us += [self._full_since_us] if self._full_since_us else []
            self.cuts_us.append(_now_us())
        self.redis.kill()
        self.up = self.stopped = self._holed = False
        if self.redis.appendfsync == "everysec":
            self._lose_what_was_not_synced()

    def signal(self, number: int) -> int | None:
        """Send it a signal; its process id, None where it does not run."""
        if not self.up:
            return None
        os.kill(self.redis.pid, number)
        self.stopped = number == signal.SIGSTOP
        if self._holed and not self.stopped:
            self._write_anew()
        return self.redis.pid

    def fill_disk(self, room: int) -> None:
        """No file of it may grow beyond the append-only file's size and `room` bytes more."""
        self._full_since_us = _now_us()
        size = max((file.stat().st_size for file in (self.redis.folder / "appendonlydir").iterdir()), default=0)
        resource.prlimit(self.redis.pid, resource.RLIMIT_FSIZE, (size + room, resource.RLIM_INFINITY))

    def free_disk(self) -> None:
        """Lift the limit; start the server where it has ended for it, else do what docs/reliability.md says of it."""
        if self.up and _ended(self.redis.pid):
            self.kill()  # which only puts it down
        elif self.up:
            resource.prlimit(self.redis.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            self._holed = self.redis.appendfsync == "everysec"  # with always it ends at the first write that fails
            if self._holed and not self.stopped:  # what stands still writes nothing, and answers nothing
                self._write_anew()
        self._full_since_us = 0
        self.start()

    def _write_anew(self) -> None:
        """Redis takes back what did not fit, and goes on where that ended: a hole, and nobody can read the file."""
        client = self.redis.client()

        def answers(look: Callable[[], bool]) -> bool:
            with contextlib.suppress(redis.exceptions.TimeoutError, redis.exceptions.ResponseError):
                return look()
            return False  # its clients are paused, or it writes anew already: not for long

        def ask(look: Callable[[], bool], what: str) -> None:
            eventually(lambda: answers(look), what=what)

        # Before it has written what waited, that would come into the new file and into what stands behind it.
        ask(lambda: client.info("persistence")["aof_last_write_status"] == "ok", "a file with room")
        ask(lambda: bool(client.bgrewriteaof()), "an append-only file begun anew")
        ask(lambda: not _rewrites(client.info("persistence")), "an append-only file that is whole")
        client.close()
        self._holed = False

    def close(self) -> None:
        """Stop it, whatever state it is in."""
        self._ending.set()
        if self.up:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.redis.pid, signal.SIGCONT)
        self.redis.stop()


def _rewrites(persistence: dict[str, Any]) -> bool:
    """The append-only file is written anew, or will be."""
    return bool(persistence["aof_rewrite_in_progress"] or persistence["aof_rewrite_scheduled"])


def _now_us() -> int:
    return time.time_ns() // 1000


def _ended(pid: int) -> bool:
    """A child that has ended and was not waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
