from __future__ import annotations

import os
from pathlib import Path

import pytest

from gaussline.worker.broker.kept_folder import KeptFolder
from gaussline.worker.contract.frame import Frame, encode_batch
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
