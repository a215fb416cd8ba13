from __future__ import annotations

import os
from pathlib import Path

import pytest

from gaussline.worker.broker.kept_folder import KeptFolder
from gaussline.worker.contract.frame import Frame, FrameBatch, encode_batch
from gaussline.worker.engine.kept_outlet import PAUSE_S, KeptOutlet
from gaussline.worker.engine.observer import Observer
from gaussline.worker.errors import BrokerError, ContractError, NotFound


def batch(sequence: int, size: int = 1000) -> bytes:
    return encode_batch("cam1", 1, sequence, [Frame(bytes(size), "png", 1_700_000_000_000_000)])


def test_what_is_put_comes_back_until_it_expires(tmp_path: Path) -> None:
    now = 10_000.0
    store = KeptFolder(tmp_path / "kept", max_bytes=10**9, max_age_s=100.0, clock=lambda: now)
    store.put("cam1:1:5", batch(5))
    os.utime(tmp_path / "kept" / "cam1_1_5.msgpack", (now, now))
    assert store.get("cam1:1:5").first_sequence == 5
    now += 99.0
    store.sweep()
    store.get("cam1:1:5")
    now += 2.0
    store.sweep()
    with pytest.raises(NotFound, match="expired"):
        store.get("cam1:1:5")
    assert store.dropped == 1


def test_the_oldest_go_first_where_bytes_run_out(tmp_path: Path) -> None:
    store = KeptFolder(tmp_path, max_bytes=3500, max_age_s=1e12, clock=lambda: 10.0)
    for sequence in range(5):
        store.put(f"cam1:1:{sequence}", batch(sequence))
        os.utime(tmp_path / f"cam1_1_{sequence}.msgpack", (sequence, sequence))
    store.sweep()
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["cam1_1_2.msgpack", "cam1_1_3.msgpack", "cam1_1_4.msgpack"]


def test_no_identity_leaves_the_folder(tmp_path: Path) -> None:
    store = KeptFolder(tmp_path / "kept", max_bytes=10**9, max_age_s=1e12)
    for hostile in ("../../etc:1:1", "cam1:1:../1", "cam1"):
        with pytest.raises(ContractError):
            store.put(hostile, b"x")
    assert list(tmp_path.rglob("*.msgpack")) == []


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BrokerError, match="cannot be written"):
        KeptFolder(tmp_path / "file" / "kept", max_bytes=1, max_age_s=1)


# --- a store that fails costs the picture, never the verdict ---------------------------------------------------------
class _Store:
    """Fails while it is told to."""

    def __init__(self) -> None:
        self.full = False
        self.calls = 0

    def put(self, frame_id: str, data: bytes) -> None:
        self.calls += 1
        if self.full:
            raise BrokerError("no space left on device")

    def get(self, frame_id: str) -> FrameBatch:
        raise NotFound(frame_id)


class _Troubles(Observer):
    def __init__(self) -> None:
        self.stages: list[str] = []

    def trouble(self, stage: str, error: BaseException) -> None:
        self.stages.append(stage)


def test_a_store_that_failed_is_left_alone_for_a_while_and_then_tried_again() -> None:
    now, store, troubles = [0.0], _Store(), _Troubles()
    outlet = KeptOutlet(store, troubles, lambda: now[0])
    assert outlet.put("cam1:1:0", b"x")
    store.full = True
    assert not outlet.put("cam1:1:1", b"x")
    store.full = False
    assert not outlet.put("cam1:1:2", b"x"), "no time-out is waited for again and again"
    assert (store.calls, troubles.stages) == (2, ["kept"])
    now[0] = PAUSE_S
    assert outlet.put("cam1:1:3", b"x")
