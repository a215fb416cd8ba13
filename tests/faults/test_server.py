"""A power cut of the harness makes no file that a disk would not: it takes of the end, and adds nothing."""

from __future__ import annotations

import time
from pathlib import Path

from tests.faults.server import UNSYNCED_S, Server


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
