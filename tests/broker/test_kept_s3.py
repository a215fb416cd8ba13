"""Kept frames in S3, against a server that speaks its protocol over HTTP."""

from __future__ import annotations

import socket
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from gaussline.worker.broker import kept_s3
from gaussline.worker.broker.kept_s3 import KeptS3
from gaussline.worker.broker.kept_store import open_kept_store
from gaussline.worker.contract.frame import Frame, encode_batch
from gaussline.worker.errors import BrokerError, BrokerUnavailable, ContractError, NotFound, SettingsError
from gaussline.worker.settings import Settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own libraries, at import
    import boto3
    from moto.server import ThreadedMotoServer


def batch(sequence: int, size: int = 1000) -> bytes:
    return encode_batch("cam1", 1, sequence, [Frame(bytes(size), "png", 1_700_000_000_000_000)])


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "line")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    client.create_bucket(Bucket="kept")
    yield client
    for item in client.list_objects_v2(Bucket="kept").get("Contents", ()):
        client.delete_object(Bucket="kept", Key=item["Key"])
    client.delete_bucket(Bucket="kept")
    client.close()


def store(endpoint: str, **options: Any) -> KeptS3:
    bounds = {"max_bytes": 10**9, "max_age_s": 1e9} | options
    return KeptS3(f"s3://kept/line1?endpoint={endpoint}&region=us-east-1", **bounds)


def test_what_is_put_comes_back_until_it_expires(endpoint: str, bucket: Any) -> None:
    ahead = [0.0]
    bucket.put_object(Bucket="kept", Key="line1/notes.txt", Body=b"not ours")
    bucket.put_object(Bucket="kept", Key="line10/cam1_1_5.msgpack", Body=b"another line's")
    now = bucket.head_object(Bucket="kept", Key="line1/notes.txt")["LastModified"].timestamp()
    kept = store(endpoint, max_age_s=100.0, clock=lambda: now + ahead[0])
    kept.put("cam1:1:5", batch(5))
    kept.put("cam1:1:5", batch(5))
    assert kept.get("cam1:1:5").first_sequence == 5
    ahead[0] = 90.0
    kept.sweep()
    kept.get("cam1:1:5")
    ahead[0] = 110.0
    kept.sweep()
    with pytest.raises(NotFound, match="expired"):
        kept.get("cam1:1:5")
    assert kept.dropped == 1
    names = [item["Key"] for item in bucket.list_objects_v2(Bucket="kept")["Contents"]]
    assert names == ["line1/notes.txt", "line10/cam1_1_5.msgpack"], "what is not ours stays"


def test_the_oldest_go_first_where_bytes_run_out(endpoint: str, bucket: Any) -> None:
    kept = store(endpoint, max_bytes=3500)
    for sequence in range(5):
        kept.put(f"cam1:1:{sequence}", batch(sequence))
    kept.sweep()
    left = [item["Key"] for item in bucket.list_objects_v2(Bucket="kept")["Contents"]]
    assert len(left) == 3
    assert kept.dropped == 2


def test_more_than_one_page_is_listed_and_deleted(endpoint: str, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_s3, "AT_ONCE", 4)
    for sequence in range(15):
        bucket.put_object(Bucket="kept", Key=f"line1/cam1_1_{sequence}.msgpack", Body=b"x" * 10)
    kept = store(endpoint, max_bytes=20)
    kept.sweep()
    assert kept.dropped == 13
    assert bucket.list_objects_v2(Bucket="kept")["KeyCount"] == 2


def test_a_store_that_is_away_or_refuses_is_told_apart(endpoint: str, bucket: Any) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(BrokerUnavailable, match=r"cam1:1:5 cannot be written \(s3://kept/line1/\)"):
            store(away).put("cam1:1:5", batch(5))
    missing = KeptS3(f"s3://nobody-s?endpoint={endpoint}&region=us-east-1", max_bytes=1, max_age_s=1)
    with pytest.raises(BrokerError, match="NoSuchBucket"):
        missing.put("cam1:1:5", batch(5))
    for hostile in ("../../etc:1:1", "cam1:1:../1", "cam1"):
        with pytest.raises(ContractError):
            store(endpoint).put(hostile, b"x")


@pytest.mark.parametrize(
    "url", ["s3://", "s3:/kept", "s3://key:secret@kept/line1", "s3://kept?endpont=http://x", "ftp://kept"]
)
def test_a_wrong_place_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(SettingsError, match="kept_store") as caught:
        open_kept_store(Settings.load({}, kept_store=url))
    assert "secret" not in str(caught.value)
