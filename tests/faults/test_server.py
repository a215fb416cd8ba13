"""A power cut of the harness makes no file that a disk would not: it takes of the end, and adds nothing."""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path

import pytest
import redis

from gaussline.worker.broker.client import Redis
from tests.faults.server import UNSYNCED_S, Server
from tests.support.waiting import eventually

PAUSE_MS = 7_000
"""Longer than a client waits for an answer."""


def test_a_cut_adds_nothing_to_a_file_that_was_longer_for_a_moment(tmp_path: Path) -> None:
    """On a full disk Redis writes what fits and takes it back again: who looked in between has seen a longer file."""
    server = Server(tmp_path, "everysec")
    try:
        server.start()
        client = server.redis.client()
        for number in range(100):
            client.set(f"key{number}", "value")
        (file,) = (server.redis.folder / "appendonlydir").glob("*.incr.aof")
        client.close()
        server.seen(file, file.stat().st_size + 1_000, time.monotonic() - 2 * UNSYNCED_S)
        size = file.stat().st_size
        server.kill()
        assert file.stat().st_size <= size
        server.start()
        client = server.redis.client()
        assert client.dbsize() <= 100
        client.close()
    finally:
        server.close()


@pytest.mark.parametrize("hindrance", ["none", "stopped", "paused"])
def test_a_file_is_whole_after_a_full_disk_though_it_was_written_anew_before(tmp_path: Path, hindrance: str) -> None:
    """Redis opens the file of a rewrite so that what it takes back leaves a hole: see docs/reliability.md.

    A server that stands still at that moment is written anew when it goes on, one that lets its clients wait after it.
    """
    server = Server(tmp_path, "everysec")
    try:
        server.start()
        client = server.redis.client()
        client.bgrewriteaof()
        eventually(lambda: not client.info("persistence")["aof_rewrite_in_progress"], what="the first rewrite")
        server.fill_disk(room=5_000)
        eventually(lambda: not _sets(client, bytes(1_000)), what="a full disk")
        if hindrance == "stopped":
            server.signal(signal.SIGSTOP)
        elif hindrance == "paused":
            client.client_pause(PAUSE_MS)
        server.free_disk()
        server.signal(signal.SIGCONT)
        eventually(lambda: _sets(client, b"after"), what="a write once there is room")
        client.close()
        server.redis.kill()  # the process alone: nothing that was written is gone
        server.up = False
        server.start()
        client = server.redis.client()
        assert client.get("key") == b"after"
        client.close()
    finally:
        server.close()


def _sets(client: Redis, value: bytes) -> bool:
    """Whether Redis takes a write: it refuses (MISCONF) while it cannot write its file."""
    with contextlib.suppress(redis.exceptions.ResponseError):
        return bool(client.set("key", value))
    return False
